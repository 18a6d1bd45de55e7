"""What one `emit` costs, beside other clients."""
