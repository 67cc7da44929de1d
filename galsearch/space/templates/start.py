"""Fetch the atlas from its data set on the Hugging Face Hub, then become the app; runs in the Space only.

    python start.py USER/NAME FILE [options of galsearch app]

A private data set needs its reader's token as the secret HF_TOKEN of the Space; HF_ENDPOINT names another hub.
"""

import os
import sys

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError


def main() -> None:
    """Fetch the file and start the app on it; exit with a message when it cannot be fetched."""
    dataset, file, *options = sys.argv[1:]
    try:
        path = hf_hub_download(dataset, file, repo_type="dataset")
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        sys.exit(
            f"{file} cannot be fetched from the data set {dataset} ({reason}); upload it there under this name, and "
            "where the data set is private set the secret HF_TOKEN"
        )
    os.execvp("galsearch", ["galsearch", "app", path, *options])


if __name__ == "__main__":
    main()
