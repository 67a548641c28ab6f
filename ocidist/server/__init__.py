"""What a registry answers with. So far: how one misbehaves when it is asked to."""
