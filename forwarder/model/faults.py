"""What a client is told when this machine is at fault: nothing of ours is named, and it may come again (RFC 3463)."""

from forwarder.model.reply import Reply

NO_ROOM = Reply(452, "4.3.1", "There is no room for the message now: try again later")
NOT_STORED = Reply(451, "4.3.0", "The message could not be stored: try again later")
INTERNAL = Reply(451, "4.3.0", "Something went wrong here: try again later")
