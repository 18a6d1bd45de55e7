"""Part `client`: what one `emit` costs, compared with other clients."""
