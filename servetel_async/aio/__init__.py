"""What asyncio needs on top: tasks with an owner, and one heavy step in each iteration of the loop."""
