"""Jobs on stored events, and on the trail as a whole: retention, erasure, copies, keys."""
