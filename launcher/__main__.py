"""`python -m jwtproxy.launcher` is `jwtproxy-run`."""

from jwtproxy.launcher.cli import main

if __name__ == "__main__":
    main()
