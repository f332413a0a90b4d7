"""What next hops are known to answer, and what each answer means: the table that `delivery.classify` looks in.

A `Row` is data: patterns for the code and the enhanced code (each matches the whole), a pattern that is searched for
in the text without case, where line breaks count as spaces, and the `Ruling`. "" as a pattern matches everything. A
row with a provider holds for that provider's hosts only; one without holds for everybody, since its words or its code
are unmistakable: block lists, reverse names and RFC 7372's codes also come from gateways and filters in front of a
provider. The first row that matches decides, so what is special stands before what is general, and each provider's
rows before those for everybody.

Rows that keep a 5xx from being returned speak of us: our address, our names, our TLS, our protocol. The opposite
mistake is as bad: a refusal of the message's content or author must reach its sender, so those rows stand before the
block lists, whose words they share.

A pause whose source gives one time only has that as its longest too. Authentication of ours that fails pauses nothing:
some messages pass by their author's signature, and should.

Left out on purpose: what the code's first digit says as well (greylisting, "try again later", most of 4.3.0, 4.4.x and
4.7.0). Proton and Fastmail answer in Postfix's words, which stand in the rows for everybody. Sources: the postmaster
pages of Google, Microsoft, Yahoo and Apple; RFC 3463, RFC 7372.

Patterns have no repetition within a repetition, and every gap in them is bounded: hostile text costs little.
"""

from dataclasses import dataclass, replace

from forwarder.model.ruling import Fate, Ruling, Scope


@dataclass(frozen=True, slots=True)
class Row:
    """One known reply. `provider` is a name as `classify.provider_of` gives it."""

    provider: str
    code: str
    enhanced: str
    text: str
    ruling: Ruling


_MINUTE, _HOUR = 60.0, 3600.0
_TEMPORARY, _PERMANENT, _EITHER = r"4\d\d", r"5\d\d", r"[45]\d\d"

# Too much at once, or for a while: the provider, one of our names, one sender or one mailbox is left alone.
_THROTTLED = Ruling(
    "throttled",
    Scope.DESTINATION,
    Fate.RETRY,
    "the provider limits how much it takes from us",
    10 * _MINUTE,
    4 * _HOUR,
)
_THROTTLED_BY_MICROSOFT = Ruling(
    "throttled", Scope.DESTINATION, Fate.RETRY, "Microsoft limits how much it takes from us", 30 * _MINUTE, _HOUR
)
_THROTTLED_BY_YAHOO = Ruling(
    "throttled", Scope.DESTINATION, Fate.RETRY, "Yahoo takes nothing from us for now", 2 * _HOUR, 2 * _HOUR
)
_THROTTLED_LONG_BY_YAHOO = Ruling(
    "throttled", Scope.DESTINATION, Fate.RETRY, "Yahoo takes nothing from us for hours", 4 * _HOUR, 4 * _HOUR
)
_THROTTLED_BY_APPLE = Ruling(
    "throttled", Scope.DESTINATION, Fate.RETRY, "iCloud limits how much it takes from us", 15 * _MINUTE, 15 * _MINUTE
)
_NETBLOCK = Ruling(
    "netblock",
    Scope.DESTINATION,
    Fate.RETRY,
    "unsolicited mail comes from the network around our address",
    _HOUR,
    _HOUR,
    alert=True,
)
_THROTTLED_DOMAIN = Ruling(
    "throttled domain",
    Scope.DOMAIN,
    Fate.RETRY,
    "the provider limits how much it takes under our domain",
    10 * _MINUTE,
    4 * _HOUR,
)
_THROTTLED_LINKS = Ruling(
    "throttled links", Scope.SENDER, Fate.RETRY, "links of this sender are in too much unsolicited mail", _HOUR, _HOUR
)
_REPEATED = Ruling(
    "repeated", Scope.MESSAGE, Fate.RETRY, "the provider has seen this Message-ID too often", _HOUR, 4 * _HOUR
)
_MAILBOX_RATE = Ruling(
    "mailbox rate", Scope.MAILBOX, Fate.RETRY, "the mailbox gets mail too quickly", 5 * _MINUTE, _HOUR
)
_MAILBOX_LIMIT = Ruling(
    "mailbox rate", Scope.MAILBOX, Fate.RETRY, "the mailbox gets more mail than it may", _HOUR, _HOUR
)
_RATE_LIMITED = Ruling(
    "rate limited", Scope.MAILBOX, Fate.RETRY, "the provider limits this mail", _HOUR, _HOUR, alert=True
)
_DNS = Ruling("dns", Scope.MESSAGE, Fate.RETRY, "the provider could not ask the DNS", 5 * _MINUTE, _HOUR)
_UNALIGNED_FOR_NOW = Ruling(
    "alignment", Scope.MESSAGE, Fate.RETRY, "the author's domain lacks DMARC or does not align", _HOUR, _HOUR
)
_SPLIT = Ruling("split", Scope.MESSAGE, Fate.RETRY, "the provider wants one recipient in each transaction", split=True)

# Ours to put right: the message is as good as any.
_BLOCKED = Ruling(
    "blocked", Scope.ADDRESS, Fate.OURS, "our address is on a block list", 4 * _HOUR, 4 * _HOUR, alert=True
)
_BAD_REPUTATION = Ruling(
    "address reputation", Scope.ADDRESS, Fate.OURS, "our address has a bad name", 4 * _HOUR, 4 * _HOUR, alert=True
)
_DIALUP = Ruling(
    "dialup",
    Scope.ADDRESS,
    Fate.OURS,
    "our address is listed as one that may not send mail directly",
    4 * _HOUR,
    4 * _HOUR,
    alert=True,
)
_PTR = Ruling(
    "ptr",
    Scope.ADDRESS,
    Fate.OURS,
    "our address has no reverse name (PTR) that leads back to it",
    _HOUR,
    24 * _HOUR,
    alert=True,
    elsewhere=True,
)
_IPV6 = Ruling(
    "ipv6",
    Scope.ADDRESS,
    Fate.OURS,
    "our IPv6 address is not accepted",
    _HOUR,
    24 * _HOUR,
    alert=True,
    elsewhere=True,
)
_TLS = Ruling("tls", Scope.DESTINATION, Fate.OURS, "the next hop wants TLS", alert=True, secure=True)
_SPF = Ruling("spf", Scope.DOMAIN, Fate.OURS, "the SPF record of our SRS domain does not cover our address", alert=True)
_UNAUTHENTICATED = Ruling("unauthenticated", Scope.DOMAIN, Fate.OURS, "our SPF or DKIM does not pass", alert=True)
_OUR_DNS = Ruling("our dns", Scope.DOMAIN, Fate.OURS, "our SRS domain is not found in the DNS", alert=True)
_HELO = Ruling("helo", Scope.ADDRESS, Fate.OURS, "the name that we say in EHLO is not accepted", alert=True)
_OUR_LIMIT = Ruling(
    "our limit",
    Scope.DESTINATION,
    Fate.OURS,
    "our account at the relay has sent as much as it may",
    _HOUR,
    4 * _HOUR,
    alert=True,
)
_OUR_ACCOUNT = Ruling("our account", Scope.MESSAGE, Fate.OURS, "the relay does not know us as its customer", alert=True)
_NOT_ALLOWED = Ruling(
    "not allowed",
    Scope.MESSAGE,
    Fate.OURS,
    "the destination's domain takes mail only from addresses that its administrator lists",
    alert=True,
)
_PROTOCOL = Ruling("protocol", Scope.MESSAGE, Fate.OURS, "the next hop does not like how we speak SMTP", alert=True)

# The destination is dead or full.
_FULL_FOR_NOW = Ruling("full", Scope.MAILBOX, Fate.RETRY, "the mailbox is full", 300.0, _HOUR, alert=True)
_FULL = Ruling("full", Scope.MAILBOX, Fate.HOLD, "the mailbox is full", alert=True)
_GONE = Ruling("gone", Scope.MAILBOX, Fate.HOLD, "the mailbox does not exist or is inactive", alert=True)
# Where the words are the provider's own they are certain. Others say them for less, and a DSN is what is expected then.
_FULL_ELSEWHERE = replace(_FULL, fate=Fate.RETURN)
_GONE_ELSEWHERE = replace(_GONE, fate=Fate.RETURN)
_BAD_DESTINATION = Ruling(
    "gone", Scope.MAILBOX, Fate.HOLD, "the address is not valid or its domain does not exist", alert=True
)

# The sender's: told.
_DMARC = Ruling("dmarc", Scope.MESSAGE, Fate.RETURN, "the author's domain wants DMARC to pass, and it does not")
_UNALIGNED = Ruling("alignment", Scope.MESSAGE, Fate.RETURN, "the author's domain lacks DMARC or does not align")
_REPUTATION = Ruling("reputation", Scope.SENDER, Fate.RETURN, "the sending domain has a bad name")
_SUSPICIOUS = Ruling("suspicious", Scope.SENDER, Fate.NEVER_QUEUE, "the content or its links are suspicious")
_SPAM = Ruling("spam", Scope.SENDER, Fate.RETURN, "the message looks unsolicited")
_CONTENT = Ruling("content", Scope.SENDER, Fate.RETURN, "the content is not accepted")
_FORMAT = Ruling("format", Scope.MESSAGE, Fate.RETURN, "the message is malformed")
_SIZE = Ruling("size", Scope.MESSAGE, Fate.RETURN, "the message is too large")
_LOOP = Ruling("loop", Scope.MESSAGE, Fate.RETURN, "the message goes round in circles")
_POLICY = Ruling("policy", Scope.MESSAGE, Fate.RETURN, "a policy of the destination's domain prohibits the message")

GOOGLE = (
    Row(
        "google",
        r"4\d\d|550",
        r"4\.2\.1|5\.4\.5|5\.7\.1",
        r"SMTP relay (sending )?limit|user sending limit",
        _OUR_LIMIT,
    ),
    Row("google", r"45\d", r"4\.2\.1", r"too quickly|rate that prevents", _MAILBOX_RATE),
    Row("google", r"550", r"5\.2\.1", r"rate that prevents", _MAILBOX_LIMIT),
    Row("google", r"550", r"5\.7\.1", r"e-?mail has been rate limited", _RATE_LIMITED),
    Row("google", r"45\d", r"4\.3\.0", r"multiple destination domains", _SPLIT),
    Row("google", r"452", r"4\.5\.3", r"separate transaction|too many recipients", _SPLIT),
    Row("google", r"550", r"5\.5\.3", r"too many recipients", _SPLIT),
    Row("google", r"421", r"4\.7\.0", r"not in (the )?(whitelist|allowlist)", _NOT_ALLOWED),
    Row("google", r"421|550", r"4\.7\.0|5\.7\.1", r"reputation of the sending domain", _REPUTATION),
    Row("google", r"421", r"4\.7\.0", r"nature of the content", _SUSPICIOUS),
    Row("google", r"45\d", r"4\.5\.0", r"protocol violation", _PROTOCOL),
    Row("google", r"552", r"5\.2\.2", r"quota|storage", _FULL),
    Row("google", r"550", r"5\.1\.1|5\.2\.1", r"does not exist|is (disabled|inactive)", _GONE),
    Row("google", r"553", r"5\.1\.[23]", r"recipient", _BAD_DESTINATION),
    Row("google", r"553", r"5\.1\.7", r"sender address", _PROTOCOL),
    Row("google", r"552", r"5\.7\.0", r"security issue", _CONTENT),
    Row("google", r"550", r"5\.7\.[01]", r"relay denied|credentials for relay|sending denied", _OUR_ACCOUNT),
    Row("google", r"554", r"5\.7\.0", r"unauthenticated commands", _PROTOCOL),
    Row("google", r"550", r"5\.7\.1", r"not authorized to send e-?mail directly", _DIALUP),
    Row("google", r"550", r"5\.7\.1", r"likely unsolicited", _SPAM),
    Row("google", r"550", r"5\.7\.1", r"policy that prohibits", _POLICY),
    Row(
        "google",
        r"550",
        r"5\.7\.1",
        r"RFC 5322|(From|Message-ID): header|unicode character|Encoded-word",
        _FORMAT,
    ),
)

MICROSOFT = (
    Row("microsoft", r"[45]50", r"[45]\.7\.2[56]", r"IPv6", _IPV6),
    Row("microsoft", r"550", r"5\.7\.(508|510)", r"", _IPV6),
    Row("microsoft", r"421|45[01]", r"4\.7\.([56]\d\d|8[5-9]\d)", r"", _THROTTLED_BY_MICROSOFT),
    Row("microsoft", r"421", r"", r"\bRP-00\d", _THROTTLED_BY_MICROSOFT),
    Row("microsoft", r"550", r"5\.7\.(511|60[6-9]|6[1-4]\d)", r"", _BLOCKED),
    Row("microsoft", r"550", r"5\.7\.1|", r"\(S31[45]0\)|on our block list", _BLOCKED),
    Row("microsoft", r"550", r"5\.7\.(509|515)", r"", _DMARC),
    Row("microsoft", r"432|45\d|5\d\d", r"4\.3\.2|5\.2\.12[12]", r"recipient thread|\breceiv", _MAILBOX_LIMIT),
    Row(
        "microsoft",
        r"550",
        r"5\.4\.1|5\.1\.10|5\.5\.0",
        r"recipient address rejected|recipient .{0,80}not found|mailbox unavailable",
        _GONE,
    ),
)

YAHOO = (
    Row("yahoo", _TEMPORARY, r"", r"\[(TSS?|IPTS)0[1-4]\]", _THROTTLED_BY_YAHOO),
    Row("yahoo", _TEMPORARY, r"", r"\[(TSS|IPTS)05\]", _THROTTLED_LONG_BY_YAHOO),
    Row("yahoo", _EITHER, r"", r"\[(TSS07|TSS09|TSS11|BL2[1-3])\]", _BLOCKED),
    Row("yahoo", r"55[04]", r"5\.7\.9", r"", _DMARC),
)

APPLE = (
    Row("apple", r"4[25]1", r"4\.7\.1|", r"excessive volume|\[(BS02|HCM1)\]", _THROTTLED_BY_APPLE),
    Row("apple", r"55[04]", r"5\.7\.1", r"\[(CS0[12]|HM08)\]", _CONTENT),
    Row("apple", r"55[04]", r"5\.7\.1", r"\[HME1\]", _DMARC),
)

_LINK = r"(urls?|links?|hyperlinks?|attachments?|domains?|files?)"
_MAIL = r"(e-?mail|message|mail|body)"
_ADDRESS = r"(client host|your (ip|host|server)|ip address|\[[0-9a-f.:]{3,45}\])"
_LISTED = r"\b(blocked|listed|listing in|blacklisted|blocklisted|block-?listed)\b"
# Up to "is listed" nothing else may come that could be what is listed, and no end of the sentence.
_STILL_THAT = r"((?!message|content|\be-?mail|sender|domain|recipient|\burl|\blink|attachment|\. ).){0,80}"

ANYBODY = (
    # Of the message, its author and its links. Lists of domains and links are asked about what stands in it.
    Row("", _PERMANENT, r"", r"\b(dbl|surbl|uribl)\b", _CONTENT),
    Row("", _TEMPORARY, r"4\.7\.26", r"temporary DNS", _DNS),
    Row("", _TEMPORARY, r"[45]\.7\.(31|32|40)", r"DMARC|aligned", _UNALIGNED_FOR_NOW),
    Row("", _PERMANENT, r"5\.7\.(31|32|40)", r"DMARC|aligned", _UNALIGNED),
    Row("", _PERMANENT, r"", r"\bDMARC\b", _DMARC),
    # 4.7.28 and 5.7.28 are Google's, and are passed through by gateways.
    Row("", _TEMPORARY, r"4\.7\.28", r"same Message-ID", _REPEATED),
    Row("", _TEMPORARY, r"4\.7\.28", r"(DKIM|SPF) domain", _THROTTLED_DOMAIN),
    Row("", _TEMPORARY, r"4\.7\.28", r"URL domain", _THROTTLED_LINKS),
    Row("", _TEMPORARY, r"4\.7\.28", r"netblock", _NETBLOCK),
    Row("", _TEMPORARY, r"4\.7\.28", r"", _THROTTLED),
    Row("", _PERMANENT, r"5\.7\.28", r"", _BLOCKED),
    # RFC 7372 3.3: reverse DNS validation failed. Others name the record, or say it as Postfix does.
    Row("", _EITHER, r"[45]\.7\.25", r"", _PTR),
    Row(
        "",
        _EITHER,
        r"",
        r"\bPTR\b|IPv6 sending guidelines|reverse (DNS|name|hostname)|find your (reverse )?hostname",
        _PTR,
    ),
    Row("", _EITHER, r"[45]\.7\.29", r"", _TLS),
    Row("", _EITHER, r"", r"\bTLS (is )?required|STARTTLS (is required|command first)", _TLS),
    # RFC 7372 3.2: of the MAIL FROM domain, which is ours (SRS). Google's 4.7.23 is about the PTR, above.
    Row("", _EITHER, r"[45]\.7\.2[347]", r"", _SPF),
    Row("", _EITHER, r"[45]\.7\.26", r"hard fail", _SPF),
    Row("", _EITHER, r"[45]\.7\.(26|30)", r"is unauthenticated|DKIM authentication", _UNAUTHENTICATED),
    Row("", _EITHER, r"", r"helo command rejected", _HELO),
    Row(
        "",
        _EITHER,
        r"",
        r"unresolvable RFC.?5321|sender address rejected:? domain not found|domain of sender address",
        _OUR_DNS,
    ),
    Row(
        "",
        _PERMANENT,
        r"",
        rf"\bcontain(s|ed|ing)?\b.{{0,60}}\b{_LINK}\b|\b{_LINK}\b.{{0,30}}\bin (the|this|your) {_MAIL}\b"
        rf"|\b(spam|message) content\b|\bcontent (of|in) (the|this|your) {_MAIL}\b|\b(virus|malware)\b"
        rf"|\b(blocked|blacklisted|listed|malicious|suspicious|banned) {_LINK}\b"
        rf"|(?<![\w/.?&=-])(urls?|links?|attachments?) (is |are |was |were )?{_LISTED}"
        rf"|\b(sender address|(a|the|your|from|author|sender|sending) domain)\b.{{0,60}}{_LISTED}",
        _CONTENT,
    ),
    # Of our address.
    Row(
        "",
        _EITHER,
        r"[45]\.7\.[01]|",
        r"reputation of the sending IP|sender IP reputation|sending MTA.s poor reputation",
        _BAD_REPUTATION,
    ),
    Row("", _EITHER, r"[45]\.7\.[01]|", rf"{_ADDRESS}{_STILL_THAT}{_LISTED}", _BLOCKED),
    Row(
        "",
        _EITHER,
        r"[45]\.7\.[01]|",
        rf"{_LISTED}.{{0,60}}\b(spamhaus|sbl|xbl|pbl|zen|spamcop|barracudacentral|proofpoint\.com/dnsbl|ipcheck\.proofpoint)\b",
        _BLOCKED,
    ),
    # Of the destination.
    Row("", _TEMPORARY, r"4\.2\.2", r"", _FULL_FOR_NOW),
    Row("", _PERMANENT, r"5\.2\.2|", r"quota|storage|mailbox (is )?full", _FULL_ELSEWHERE),
    Row(
        "",
        _PERMANENT,
        r"5\.1\.1|5\.1\.6|5\.2\.1|",
        # A sender that is unknown is none of the destination's faults.
        r"^(?!.*\bsender\b).*(user unknown|unknown user|no such (user|mailbox|recipient|address)"
        r"|\binactive (e-?mail )?(address|account|mailbox|user)"
        r"|\b(account|user|mailbox|recipient|(?<!IP )address)\b.{0,80}"
        r"\b(does not exist|doesn.t exist|not found|inactive|disabled)\b"
        r"|user doesn.t have an? .{1,40} account)",
        _GONE_ELSEWHERE,
    ),
    # Of the message's form.
    Row("", _PERMANENT, r"5\.3\.4", r"", _SIZE),
    Row("", _PERMANENT, r"5\.4\.6", r"", _LOOP),
    Row("", _PERMANENT, r"5\.6\.\d+", r"", _FORMAT),
    # Of how we speak: unless the text is about what we bring.
    Row(
        "",
        r"50[0-4]|523|53[0458]|555",
        r"5\.0\.0|5\.1\.7|5\.5\.\d+|5\.7\.([089]|[1-9]\d)|",
        r"^(?!.*\b(spam|content|attachment|virus|too (large|big)"
        r"|message (was |is |has been )?(rejected|refused|blocked))\b)",
        _PROTOCOL,
    ),
    Row("", r"55\d", r"5\.5\.[12]", r"protocol|sequence|command|syntax", _PROTOCOL),
)

ROWS = GOOGLE + MICROSOFT + YAHOO + APPLE + ANYBODY
