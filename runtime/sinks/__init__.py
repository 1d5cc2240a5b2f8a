"""Where restored frames go: files, streams, nowhere, or several of them."""
