"""Programs that use the engine from outside; nothing here may be imported by it."""
