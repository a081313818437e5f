"""Reading calls as a stream: pages requested ahead, delivered in order, each call once."""
