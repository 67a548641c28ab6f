"""A registry in memory, with the faults and the manners of others on request. No command loads it."""
