"""The admin side: admission ticks, the admin listener and its pages."""
