"""Hooks: running the commands that a manifest wants run around the steps of a plan."""

from reconciler.hooks.listener import HookListener
from reconciler.hooks.runner import Runner

__all__ = ["HookListener", "Runner"]
