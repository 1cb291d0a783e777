"""`python -m trainer` is `rebrain-train`."""

from trainer.cli import app

if __name__ == "__main__":
    app()
