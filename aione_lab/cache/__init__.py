"""Shared state of a running lab: small JSON values by key, and messages on channels, in Redis or in one file."""

from aione_lab.cache.handler import Message, SimpleCacheHandler, Subscription

__all__ = ["Message", "SimpleCacheHandler", "Subscription"]
