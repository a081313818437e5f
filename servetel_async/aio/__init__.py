"""Additions to asyncio: tasks with an owner, and one heavy step in each loop iteration."""
