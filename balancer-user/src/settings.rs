//! The configuration file (design 9.5): what `load` uses of it, what it leaves to the agent.
