"""What keeps a store in order: what it holds, where the disk went, what is damaged, what nothing holds."""
