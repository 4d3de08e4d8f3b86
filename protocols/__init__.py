"""What bytes mean on the swarm: records, codec, signatures, tasks, diffs, topics, invites. Pure."""
