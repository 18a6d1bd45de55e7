"""What is stored, for people and programs: chosen, followed, exported, told of one person."""
