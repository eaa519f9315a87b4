"""What is said of the image and of compose.yaml, proved with a real Docker engine: `make docker-test`.

No file here is called test_…, so `make test` needs no engine.
"""
