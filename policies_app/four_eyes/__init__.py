"""Changes beside rollouts that take a second person: serving a first version, switching four eyes off."""
