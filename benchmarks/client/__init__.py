"""Part `client`: the cost of one `emit`, compared with other clients."""
