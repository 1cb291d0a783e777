"""Knowledge bases of exemplars: building, keyed hashes of subjects, figures of a report."""
