"""Evidence: verifies the trail, and keeps anchors of its head."""
