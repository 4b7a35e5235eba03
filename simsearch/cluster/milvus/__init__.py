"""Libraries published to Milvus, and searched there."""
