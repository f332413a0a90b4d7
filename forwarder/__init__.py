"""forwarder: the MX of your domains; it hands accepted mail on to the inbox where you read it."""

__version__ = "0.1.0"
