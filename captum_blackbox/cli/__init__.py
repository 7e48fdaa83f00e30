"""The command line ``captum-blackbox``; torch is loaded only when a command runs."""

from captum_blackbox.cli.app import app, main

__all__ = ["app", "main"]
