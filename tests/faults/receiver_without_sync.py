"""A receiver that acknowledges what is not yet on the disk: the control of `power_cuts`."""

import os

from tests.integration.receiver_process import main

os.fsync = lambda descriptor: None  # type: ignore[assignment]

if __name__ == "__main__":
    main()
