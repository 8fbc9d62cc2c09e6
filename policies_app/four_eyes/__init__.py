"""Changes outside rollouts that need a second person: serving a first version, turning four eyes off."""
