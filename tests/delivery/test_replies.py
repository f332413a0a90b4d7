"""The table of known replies, held against Google's list and the words of five other providers."""

from collections.abc import Iterator

import pytest

from forwarder.delivery import classify as module
from forwarder.delivery.classify import classify
from forwarder.delivery.replies import ROWS, Row
from forwarder.model.reply import Reply
from forwarder.model.ruling import PERMANENT, TEMPORARY, Ruling
from tests.conformance import google_errors

HOSTS = {
    "google": "gmail-smtp-in.l.google.com",
    "microsoft": "hotmail-com.olc.protection.outlook.com",
    "yahoo": "mta5.am0.yahoodns.net",
    "apple": "mx01.mail.icloud.com",
    "proton": "mailsec.protonmail.ch",
    "fastmail": "in1-smtp.messagingengine.com",
    "": "mx.example.net",
}

# What each class of reply means: name, whom it speaks of, what becomes of the message, pause-longest, wishes.
MEANINGS = {
    "throttled": "throttled: destination, retry, 600-14400",
    "throttled by microsoft": "throttled: destination, retry, 1800-3600",
    "throttled by yahoo": "throttled: destination, retry, 7200-7200",
    "throttled long by yahoo": "throttled: destination, retry, 14400-14400",
    "throttled by apple": "throttled: destination, retry, 900-900",
    "netblock": "netblock: destination, retry, 3600-3600, alert",
    "throttled domain": "throttled domain: our domain, retry, 600-14400",
    "throttled links": "throttled links: sender, retry, 3600-3600",
    "repeated": "repeated: message, retry, 3600-14400",
    "mailbox rate": "mailbox rate: mailbox, retry, 300-3600",
    "mailbox limit": "mailbox rate: mailbox, retry, 3600-3600",
    "rate limited": "rate limited: mailbox, retry, 3600-3600, alert",
    "dns": "dns: message, retry, 300-3600",
    "unaligned for now": "alignment: message, retry, 3600-3600",
    "split": "split: message, retry, 0-0, split",
    "blocked": "blocked: our address, ours, 14400-14400, alert",
    "address reputation": "address reputation: our address, ours, 14400-14400, alert",
    "dialup": "dialup: our address, ours, 14400-14400, alert",
    "ptr": "ptr: our address, ours, 3600-86400, alert, elsewhere",
    "ipv6": "ipv6: our address, ours, 3600-86400, alert, elsewhere",
    "tls": "tls: destination, ours, 0-0, alert, secure",
    "spf": "spf: our domain, ours, 0-0, alert",
    "unauthenticated": "unauthenticated: our domain, ours, 0-0, alert",
    "our dns": "our dns: our domain, ours, 0-0, alert",
    "helo": "helo: our address, ours, 0-0, alert",
    "our limit": "our limit: destination, ours, 3600-14400, alert",
    "our account": "our account: message, ours, 0-0, alert",
    "not allowed": "not allowed: message, ours, 0-0, alert",
    "protocol": "protocol: message, ours, 0-0, alert",
    "full for now": "full: mailbox, retry, 300-3600, alert",
    "full": "full: mailbox, hold, 0-0, alert",
    "gone": "gone: mailbox, hold, 0-0, alert",
    "gone elsewhere": "gone: mailbox, return, 0-0, alert",
    "full elsewhere": "full: mailbox, return, 0-0, alert",
    "bad destination": "gone: mailbox, hold, 0-0, alert",
    "dmarc": "dmarc: message, return, 0-0",
    "unaligned": "alignment: message, return, 0-0",
    "reputation": "reputation: sender, return, 0-0",
    "suspicious": "suspicious: sender, never queue, 0-0",
    "spam": "spam: sender, return, 0-0",
    "content": "content: sender, return, 0-0",
    "format": "format: message, return, 0-0",
    "size": "size: message, return, 0-0",
    "loop": "loop: message, return, 0-0",
    "policy": "policy: message, return, 0-0",
    "temporary": "temporary: message, retry, 0-0",
    "permanent": "permanent: message, return, 0-0",
}

# Every row of Google's list in its order: code, enhanced code, words of its text, what it means.
GOOGLE_PUBLISHED = [
    (450, "4.2.1", "are trying to contact is receiving email too", "mailbox rate"),
    (450, "4.2.1", "are trying to contact is receiving email at", "mailbox rate"),
    (450, "4.2.1", "Peak SMTP relay limit exceeded for this cust", "our limit"),
    (452, "4.2.2", "The recipient's inbox is out of storage spac", "full for now"),
    (451, "4.3.0", "Email server has temporarily rejected this m", "temporary"),
    (451, "4.3.0", "Multiple destination domains per transaction", "split"),
    (421, "4.3.0", "Temporary System Problem. Try again later. F", "temporary"),
    (451, "4.4.2", "Timeout - closing connection. For more infor", "temporary"),
    (421, "4.4.5", "Server busy, try again later. For more infor", "temporary"),
    (451, "4.5.0", "SMTP protocol violation. For more informatio", "protocol"),
    (452, "4.5.3", "Domain policy size per transaction exceeded,", "split"),
    (452, "4.5.3", "Your message has too many recipients. For mo", "split"),
    (421, "4.7.0", "Connection expired, try reconnecting. For mo", "temporary"),
    (421, "4.7.0", "IP not in whitelist for RCPT domain, closing", "not allowed"),
    (421, "4.7.0", "Try again later, closing connection. (comman", "temporary"),
    (421, "4.7.0", "The IP address sending this message does not", "ptr"),
    (454, "4.7.0", "Too many login attempts, please try again la", "temporary"),
    (454, "4.7.0", "Cannot authenticate due to a temporary syste", "temporary"),
    (421, "4.7.0", "TLS required for RCPT domain, closing connec", "tls"),
    (421, "4.7.0", "to the very low reputation of the sending IP", "address reputation"),
    (421, "4.7.0", "to the very low reputation of the sending do", "reputation"),
    (421, "4.7.0", "This message is suspicious due to the nature", "suspicious"),
    (451, "4.7.23", "ip-address The sending IP address for this m", "ptr"),
    (451, "4.7.24", "The SPF record of the sending domain has one", "spf"),
    (451, "4.7.26", "Unauthenticated email from domain-name is no", "dns"),
    (421, "4.7.26", "This email has been rate limited because it", "unauthenticated"),
    (421, "4.7.27", "Your email has been rate limited because SPF", "spf"),
    (421, "4.7.28", "Gmail has detected an unusual rate of email.", "throttled"),
    (421, "4.7.28", "has detected an unusual rate of email origin", "throttled"),
    (421, "4.7.28", "unsolicited email originating from your IP N", "netblock"),
    (421, "4.7.28", "of unsolicited email originating from your D", "throttled domain"),
    (421, "4.7.28", "of unsolicited email originating from your S", "throttled domain"),
    (421, "4.7.28", "an unusual rate of unsolicited email contain", "throttled links"),
    (421, "4.7.28", "Gmail has detected an unusual amount of unso", "throttled"),
    (421, "4.7.28", "Gmail has detected this sender exceeded the", "repeated"),
    (421, "4.7.29", "Your email has been rate limited because you", "tls"),
    (421, "4.7.30", "Your email has been rate limited because DKI", "unauthenticated"),
    (421, "4.7.40", "Your email has been rate limited because the", "unaligned for now"),
    (421, "4.7.32", "Your email has been rate limited because the", "unaligned for now"),
    (421, "5.7.32", "Your email was blocked because the From: hea", "unaligned for now"),
    (550, "5.1.1", "The email account that you tried to reach do", "gone"),
    (553, "5.1.2", "We weren't able to find the recipient domain", "bad destination"),
    (553, "5.1.3", "The recipient address address is not a valid", "bad destination"),
    (553, "5.1.7", "The sender address address is not a valid RF", "protocol"),
    (550, "5.2.1", "The email account that you tried to reach is", "gone"),
    (550, "5.2.1", "The user you are trying to contact is receiv", "mailbox limit"),
    (552, "5.2.2", "The recipient's inbox is out of storage spac", "full"),
    (552, "5.3.4", "Your message exceeded Google's message size", "size"),
    (552, "5.3.4", "The number of attachments (num-attachments)", "size"),
    (552, "5.3.4", "The size of your message (size bytes) exceed", "size"),
    (552, "5.3.4", "Your message exceeded Google's message header size limits. T", "size"),
    (552, "5.3.4", "Google's message header size limits. Message", "size"),
    (552, "5.3.4", "The size of the header name header value (si", "size"),
    (552, "5.3.4", "The size of one of the header values (size b", "size"),
    (552, "5.3.4", "The size of a header name (size bytes) excee", "size"),
    (552, "5.3.4", "Your message has a Subject: header that exce", "size"),
    (550, "5.4.5", "Daily user sending limit exceeded. For more", "our limit"),
    (550, "5.4.5", "Daily SMTP relay limit exceeded for user. Fo", "our limit"),
    (554, "5.4.6", "Message exceeded 50 hops, this may indicate", "loop"),
    (503, "5.5.1", "Bad sequence of commands. For more informati", "protocol"),
    (502, "5.5.1", "Unimplemented command. For more information,", "protocol"),
    (502, "5.5.1", "Unrecognized command. For more information,", "protocol"),
    (502, "5.5.1", "Too many unrecognized commands, goodbye. For", "protocol"),
    (503, "5.5.1", "No DATA after BDAT. An email transaction pro", "protocol"),
    (503, "5.5.1", "EHLO/HELO first. An email transaction protoc", "protocol"),
    (503, "5.5.1", "An email transaction protocol command was is", "protocol"),
    (503, "5.5.1", "RCPT first. An email transaction protocol co", "protocol"),
    (501, "5.5.2", "Syntax error, cannot decode response. For mo", "protocol"),
    (555, "5.5.2", "Syntax error. For more information, go to Ab", "protocol"),
    (555, "5.5.2", "Syntax error, goodbye. For more information,", "protocol"),
    (550, "5.5.3", "Too many recipients for this sender. For mor", "split"),
    (501, "5.5.4", "HELO/EHLO argument argument invalid closing", "protocol"),
    (501, "5.5.4", "Empty HELO/EHLO argument not allowed, closin", "protocol"),
    (554, "5.6.0", "Email message is malformed. Not accepted. Fo", "format"),
    (552, "5.7.0", "security issue. To review our message conten", "content"),
    (503, "5.7.0", "No identity changes permitted. For more info", "protocol"),
    (550, "5.7.0", "Email relay denied ip-address. Invalid crede", "our account"),
    (550, "5.7.0", "Email relay denied ip-address. The sending e", "our account"),
    (550, "5.7.0", "Email sending denied. For more information,", "our account"),
    (554, "5.7.0", "Too many unauthenticated commands. For more", "protocol"),
    (530, "5.7.0", "Authentication required. For more informatio", "protocol"),
    (530, "5.7.0", "Must issue a STARTTLS command first. For mor", "tls"),
    (552, "5.7.0", "security issue. To review our message and at", "content"),
    (550, "5.7.1", "The user or domain that you are sending to (", "policy"),
    (550, "5.7.1", "Invalid credentials for relay ip-address. Th", "our account"),
    (550, "5.7.1", "This message is likely unsolicited email. To", "spam"),
    (550, "5.7.1", "This message does not meet IPv6 sending guid", "ptr"),
    (550, "5.7.1", "to the very low reputation of the sending IP", "address reputation"),
    (550, "5.7.1", "to the very low reputation of the sending do", "reputation"),
    (550, "5.7.1", "Messages missing a valid address in the From", "format"),
    (550, "5.7.1", "Messages missing a valid Message-ID: header", "format"),
    (550, "5.7.1", "Messages with multiple addresses in the From", "format"),
    (550, "5.7.1", "The message contains a unicode character in", "format"),
    (550, "5.7.1", "is not RFC 5322 compliant because it has dup", "format"),
    (550, "5.7.1", "5322 compliant because the From: header is m", "format"),
    (550, "5.7.1", "is not RFC 5322 compliant because it has mul", "format"),
    (550, "5.7.1", "5322 compliant because the From: header has", "format"),
    (550, "5.7.1", "This email has been rate limited. For more i", "rate limited"),
    (550, "5.7.1", "The IP you're using to send email is not aut", "dialup"),
    (550, "5.7.1", "Daily SMTP relay sending limit exceeded for", "our limit"),
    (550, "5.7.1", "Encoded-word syntax is not permitted in mess", "format"),
    (550, "5.7.1", "message is not RFC 5322 compliant. There are", "format"),
    (550, "5.7.1", "message is not RFC 5322 compliant. There is", "format"),
    (523, "5.7.10", "SMTP protocol violation, no commands allowed", "protocol"),
    (501, "5.7.11", "Syntax error (no parameters allowed). For mo", "protocol"),
    (534, "5.7.14", "Please log in through your web browser and t", "protocol"),
    (550, "5.7.24", "The SPF record of the sending domain has one", "spf"),
    (550, "5.7.25", "This message was blocked because the sending", "ptr"),
    (550, "5.7.26", "This email has been blocked because the send", "unauthenticated"),
    (550, "5.7.26", "The (E)MAIL FROM domain [domain-name] has an", "spf"),
    (550, "5.7.26", "Unauthenticated email from domain-name is no", "dmarc"),
    (550, "5.7.27", "This message was blocked because it didn't p", "spf"),
    (550, "5.7.28", "There is an unusual rate of unsolicited emai", "blocked"),
    (550, "5.7.29", "This message was blocked because it wasn't s", "tls"),
    (550, "5.7.30", "This message was blocked because it didn't p", "unauthenticated"),
    (550, "5.7.40", "Your message was blocked because the sending", "unaligned"),
    (504, "5.7.40", "Unrecognized authentication type. For more i", "protocol"),
    (504, "5.7.40", "XOAUTH is no longer supported. For more info", "protocol"),
    (535, "5.7.80", "Username and Password not accepted. For more", "protocol"),
    (534, "5.7.90", "Application-specific password required. For", "protocol"),
    (534, "5.7.90", "Please log in with your web browser and then", "protocol"),
]

Sample = tuple[int, str, str, str]

GOOGLE: list[Sample] = [
    (552, "5.2.2", "The recipient's inbox is out of storage space and inactive. a1-2.gsmtp", "full"),
    (550, "5.1.1", "The email account that you tried to reach does not exist. a1-2.gsmtp", "gone"),
    (450, "4.2.1", "Peak SMTP relay limit exceeded for this customer.", "our limit"),
    (450, "4.2.1", "The user you are trying to contact is receiving email too quickly.", "mailbox rate"),
    (550, "5.2.1", "The user is receiving email at a rate that prevents additional messages", "mailbox limit"),
    (550, "5.7.1", "This email has been rate limited.", "rate limited"),
    (451, "4.3.0", "Multiple destination domains per transaction is unsupported.", "split"),
    (452, "4.5.3", "please try this recipient in a separate transaction.", "split"),
    (452, "4.5.3", "Your message has too many recipients.", "split"),
    (550, "5.5.3", "Too many recipients for this sender.", "split"),
    (421, "4.7.0", "IP not in whitelist for RCPT domain, closing connection.", "not allowed"),
    (550, "5.7.1", "likely suspicious due to the very low reputation of the sending domain.", "reputation"),
    (421, "4.7.0", "suspicious due to the nature of the content or the links within.", "suspicious"),
    (451, "4.5.0", "SMTP protocol violation.", "protocol"),
    (553, "5.1.2", "We weren't able to find the recipient domain.", "bad destination"),
    (553, "5.1.7", "The sender address <x> is not a valid RFC 5321 address.", "protocol"),
    (552, "5.7.0", "blocked because its content presents a potential security issue.", "content"),
    (550, "5.7.0", "Email relay denied 192.0.2.1. Invalid credentials for relay", "our account"),
    (554, "5.7.0", "Too many unauthenticated commands.", "protocol"),
    (550, "5.7.1", "The IP you're using to send email is not authorized to send email directly to our", "dialup"),
    (550, "5.7.1", "This message is likely unsolicited email.", "spam"),
    (550, "5.7.1", "has a policy that prohibits the email that you sent.", "policy"),
    (550, "5.7.1", "Messages missing a valid Message-ID: header are not accepted.", "format"),
    (421, "4.7.0", "Try again later, closing connection.", "temporary"),
]

MICROSOFT: list[Sample] = [
    (550, "4.7.26", "Service does not accept messages sent over IPv6 [2001:db8::1] unless they pass SPF", "ipv6"),
    (450, "4.7.26", "Access denied, a message sent over IPv6 [2001:db8::1] must pass either SPF or DKIM", "ipv6"),
    (550, "5.7.25", "Access denied, the sending IPv6 address [2001:db8::1] must have a reverse DNS record", "ipv6"),
    (550, "5.7.508", "Access denied, [$SenderIPAddress] has exceeded permitted limits within range", "ipv6"),
    (550, "5.7.510", "Access denied, contoso.example does not accept email over this protocol", "ipv6"),
    (
        451,
        "4.7.650",
        "The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation. For e-mail delivery "
        "information, see https://aka.ms/postmaster (S775) [Name=Protocol Filter Agent][AGT=PFA]",
        "throttled by microsoft",
    ),
    (451, "4.7.500", "Server busy. Please try again later from [192.0.2.1]. (S77719)", "throttled by microsoft"),
    (451, "4.7.850", "Access denied, please try again later", "throttled by microsoft"),
    (451, "4.7.899", "Access denied, please try again later", "throttled by microsoft"),
    (
        421,
        "",
        "RP-001 The mail server IP connecting to Outlook.com has exceeded the rate limit",
        "throttled by microsoft",
    ),
    (421, "", "RP-003 (BAY004-MC1F5) Unfortunately, some messages weren't sent.", "throttled by microsoft"),
    (
        550,
        "5.7.1",
        "Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your Internet service provider since "
        "part of their network is on our block list (S3150). You can also refer your provider to "
        "http://mail.live.com/mail/troubleshooting.aspx#errors.",
        "blocked",
    ),
    (550, "", "messages from 192.0.2.1 weren't sent, part of their network is on our block list", "blocked"),
    (550, "5.7.511", "Access denied, banned sender[192.0.2.1]. To request removal, forward this", "blocked"),
    (550, "5.7.606", "Access denied, banned sending IP [192.0.2.1]. To request removal visit", "blocked"),
    (550, "5.7.649", "Access denied, banned sending IP [192.0.2.1]", "blocked"),
    (550, "5.7.1", "Service unavailable, Client host [192.0.2.1] blocked using Spamhaus.", "blocked"),
    (
        550,
        "5.7.509",
        "Access denied, sending domain example.net does not pass DMARC verification and has a DMARC policy of reject.",
        "dmarc",
    ),
    (550, "5.7.515", "Access denied, sending domain x doesn't meet the required authentication level.", "dmarc"),
    (550, "5.7.23", "The message was rejected because of Sender Policy Framework violation", "spf"),
    (432, "4.3.2", "STOREDRV.Deliver; recipient thread limit exceeded", "mailbox limit"),
    (550, "5.2.121", "The recipient has exceeded their limit for the number of messages they receive", "mailbox limit"),
    (550, "5.4.1", "Recipient address rejected: Access denied. [DB5EUR01FT011.eop]", "gone"),
    (550, "5.1.10", "RESOLVER.ADR.RecipientNotFound; Recipient x@outlook.com not found by SMTP lookup", "gone"),
    (550, "5.5.0", "Requested action not taken: mailbox unavailable (S2017062302).", "gone"),
    (554, "5.2.2", "mailbox full; STOREDRV.Deliver.Exception:QuotaExceededException", "full elsewhere"),
    (451, "5.7.3", "STARTTLS is required to send mail", "tls"),
    (530, "5.7.57", "Client was not authenticated to send anonymous mail during MAIL FROM", "protocol"),
    (550, "5.7.64", "TenantAttribution; Relay Access Denied", "permanent"),
    (451, "4.3.2", "Temporary server error. Please try again later. PRX5", "temporary"),
]

YAHOO: list[Sample] = [
    (
        421,
        "4.7.0",
        "[TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints - "
        "4.16.55.1; see https://postmaster.yahooinc.com/error-codes",
        "throttled by yahoo",
    ),
    (421, "4.7.0", "[IPTS04] Messages from 192.0.2.1 temporarily deferred", "throttled by yahoo"),
    (421, "", "[TS02] Messages from 192.0.2.1 temporarily deferred - 4.16.51", "throttled by yahoo"),
    (421, "4.7.0", "[TSS05] Messages from 192.0.2.1 temporarily deferred", "throttled long by yahoo"),
    (553, "5.7.2", "[TSS09] All messages from 192.0.2.1 will be permanently deferred", "blocked"),
    (553, "5.7.2", "[TSS11] All messages from 192.0.2.1 will be permanently deferred", "blocked"),
    (421, "4.7.1", "[TSS07] All messages from 192.0.2.1 will be permanently deferred", "blocked"),
    (553, "5.7.1", "[BL21] Connections will not be accepted from 192.0.2.1, because the ip is in a list", "blocked"),
    (553, "5.7.1", "[BL23] Connections not accepted from servers without a domain in the header", "blocked"),
    (554, "5.7.9", "Message not accepted for policy reasons. See https://postmaster.yahooinc.com/err", "dmarc"),
    (451, "", "Message temporarily deferred due to unresolvable RFC.5321 from domain; see https://x", "our dns"),
    (554, "", "Message not allowed - [PH01] Email not accepted for policy reasons.", "permanent"),
    (554, "", "delivery error: dd This user doesn't have a yahoo.com account (x@yahoo.com) [0]", "gone elsewhere"),
    (554, "", "30 Sorry, your message to x@yahoo.com cannot be delivered. This mailbox is disabled", "gone elsewhere"),
    (552, "", "1 Requested mail action aborted, mailbox not found", "gone elsewhere"),
    (552, "5.2.2", "Mailbox is over quota", "full elsewhere"),
    (421, "", "Max message per connection reached, closing transmission channel", "temporary"),
    (451, "4.3.2", "Internal error reading data", "temporary"),
]

APPLE: list[Sample] = [
    (
        421,
        "4.7.1",
        "Messages to x@icloud.com deferred due to excessive volume. Try again later - "
        "https://support.apple.com/en-us/HT204137",
        "throttled by apple",
    ),
    (421, "4.7.1", "[HCM1] Service unavailable", "throttled by apple"),
    (451, "4.7.1", "[BS02] Service unavailable, try later", "throttled by apple"),
    (450, "4.1.8", "<SRS0=x@fwd.example.org>: Sender address rejected: Domain not found", "our dns"),
    (550, "5.7.1", "[CS01] Message rejected due to local policy. Please visit https://x", "content"),
    (554, "5.7.1", "[CS02] Message rejected due to local policy.", "content"),
    (554, "5.7.1", "[HM08] Message rejected due to local policy.", "content"),
    (554, "5.7.1", "[HME1] This message was blocked for failing both SPF and DKIM checks.", "dmarc"),
    (550, "5.7.1", "Your message was rejected due to example.com DMARC policy.", "dmarc"),
    (
        550,
        "5.7.1",
        "Your email was rejected due to having a domain present in the Spamhaus DBL -- see "
        "https://www.spamhaus.org/dbl/",
        "content",
    ),
    (550, "5.7.0", "Blocked - see https://support.proofpoint.com/dnsbl-lookup.cgi?ip=192.0.2.1", "blocked"),
    (550, "5.7.1", "Mail from IP 192.0.2.1 was rejected due to listing in Spamhaus SBL.", "blocked"),
    (550, "5.1.1", "<x@icloud.com>: user does not exist", "gone elsewhere"),
    (550, "5.1.1", "unavailable: inactive email address", "gone elsewhere"),
    (552, "5.2.2", "<x@icloud.com>: user is over quota", "full elsewhere"),
    (451, "4.7.1", "Service unavailable - try again later", "temporary"),
]

PROTON: list[Sample] = [
    (550, "5.5.1", "Protocol error", "protocol"),
    (550, "5.1.1", "<x@proton.me>: Recipient address rejected: Address does not exist", "gone elsewhere"),
    (
        550,
        "5.1.1",
        "<x@proton.me>: Recipient address rejected: User unknown in relay recipient table",
        "gone elsewhere",
    ),
    (552, "5.2.2", "<x@proton.me>: Recipient address rejected: Over quota", "full elsewhere"),
    (452, "4.2.2", "<x@proton.me>: Mailbox is full", "full for now"),
    (450, "4.7.25", "Client host rejected: cannot find your hostname, [192.0.2.1]", "ptr"),
    (450, "4.7.1", "Client host rejected: cannot find your reverse hostname, [192.0.2.1]", "ptr"),
    (554, "5.7.1", "Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org;", "blocked"),
    (550, "5.7.1", "rejected by DMARC policy for example.net", "dmarc"),
    (450, "4.7.1", "<mx1.example.org>: Helo command rejected: Host not found", "helo"),
    (530, "5.7.0", "Must issue a STARTTLS command first", "tls"),
    (552, "5.3.4", "Message size exceeds fixed limit", "size"),
    (554, "5.4.6", "Error: too many hops", "loop"),
    (451, "4.7.1", "<x@proton.me>: Recipient address rejected: Greylisted, try again", "temporary"),
    (451, "4.3.0", "Error: queue file write error", "temporary"),
    (550, "5.7.1", "<x@proton.me>: Recipient address rejected: Blocked by the recipient", "permanent"),
]

FASTMAIL: list[Sample] = [
    (
        550,
        "5.1.1",
        "<x@fastmail.com>: Recipient address rejected: User unknown in local recipient table",
        "gone elsewhere",
    ),
    (550, "5.2.1", "<x@fastmail.com>: Account is disabled", "gone elsewhere"),
    (452, "4.2.2", "Over quota", "full for now"),
    (552, "5.2.2", "Over quota SESSIONID=<x>", "full elsewhere"),
    (554, "5.7.1", "Client host [2001:db8::1] blocked using spamcop; Blocked - see https://x", "blocked"),
    (554, "5.7.1", "Service unavailable; Your message contains a blacklisted link", "content"),
    (554, "5.7.1", "Message blocked because it contains malware or another attachment", "content"),
    (550, "5.7.1", "failed DMARC check, the domain has a reject policy", "dmarc"),
    (550, "5.7.23", "Message rejected due to: SPF fail - not authorized", "spf"),
    (554, "5.6.0", "Message is malformed", "format"),
    (451, "4.7.1", "Greylisting in action, please come back later", "temporary"),
    (421, "4.3.2", "All server ports are busy", "temporary"),
    (503, "5.5.1", "Error: nested MAIL command", "protocol"),
    (554, "5.7.1", "Sorry, message looks like SPAM to me", "permanent"),
]

ANYBODY: list[Sample] = [
    (554, "5.7.1", "Blocked: a URL in this message is listed by Spamhaus DBL", "content"),
    (550, "", "message refused, multi.surbl.org knows example.net", "content"),
    (550, "5.7.1", "[192.0.2.1] Message blocked due to spam content in the message", "content"),
    (554, "5.7.1", "The link is blocked, from client host [192.0.2.1] or any", "content"),
    (451, "4.7.26", "not accepted due to domain's DMARC policy, but temporary DNS failures", "dns"),
    (421, "4.7.40", "the sending domain doesn't have a DMARC record", "unaligned for now"),
    (421, "", "5.7.32 From: header isn't aligned with either the SPF or DKIM organizational", "unaligned for now"),
    (550, "5.7.40", "the sending domain doesn't have a DMARC record", "unaligned"),
    (550, "5.7.26", "Unauthenticated email is not accepted due to domain's DMARC policy.", "dmarc"),
    (421, "4.7.28", "exceeded the quota for messages that have the same Message-ID:.", "repeated"),
    (421, "4.7.28", "unusual rate of unsolicited email originating from your DKIM domain", "throttled domain"),
    (421, "4.7.28", "unusual rate of unsolicited email originating from your SPF domain", "throttled domain"),
    (421, "4.7.28", "unsolicited email containing one of your URL domains.", "throttled links"),
    (421, "4.7.28", "unsolicited email originating from your IP Netblock", "netblock"),
    (421, "4.7.28", "unusual rate of email originating from your IP address", "throttled"),
    (550, "5.7.28", "unusual rate of unsolicited email from your IP", "blocked"),
    (550, "5.7.25", "The sending address has nothing that leads back to it", "ptr"),
    (421, "4.7.0", "The IP address sending this message does not have a PTR record", "ptr"),
    (550, "5.7.1", "This message does not meet IPv6 sending guidelines", "ptr"),
    (550, "5.7.29", "This message was blocked because it wasn't sent over an encrypted connection.", "tls"),
    (421, "4.7.0", "TLS required for RCPT domain, closing connection.", "tls"),
    (550, "5.7.24", "The SPF record of the sending domain has suspicious entries.", "spf"),
    (550, "5.7.27", "blocked because it didn't pass SPF authentication.", "spf"),
    (550, "5.7.26", "The MAIL FROM domain [x] has an SPF record with a hard fail policy", "spf"),
    (550, "5.7.26", "This email has been blocked because the sender is unauthenticated.", "unauthenticated"),
    (421, "4.7.30", "DKIM authentication didn't pass for this message.", "unauthenticated"),
    (553, "5.1.8", "Domain of sender address SRS0=x@fwd.example.org does not exist", "our dns"),
    (554, "", "Your IP 192.0.2.1 is listed at bl.example", "blocked"),
    (450, "4.7.1", "Client host [192.0.2.1] blocked using b.barracudacentral.org", "blocked"),
    (554, "", "Rejected: 192.0.2.1 was listed by the SBL", "blocked"),
    (554, "", "Access rejected due to the sending MTA's poor reputation", "address reputation"),
    (550, "5.7.1", "likely suspicious due to the very low reputation of the sending IP address.", "address reputation"),
    (550, "", "No such user here", "gone elsewhere"),
    (550, "5.1.0", "Sender address rejected: user unknown", "permanent"),
    (550, "", "Sender verification failed: user unknown", "permanent"),
    (550, "5.1.1", "We do not want this", "permanent"),
    (552, "", "Quota exceeded", "full elsewhere"),
    (535, "5.7.8", "Authentication credentials invalid", "protocol"),
    (501, "", "Message rejected", "permanent"),
    (500, "", "Message too large", "permanent"),
    (550, "5.7.1", "the sender domain example.net is listed by Spamhaus", "content"),
    (554, "5.7.1", "Sender address [x@example.net] blocked using a list at spamhaus", "content"),
    (554, "5.7.1", "[192.0.2.1] attachment is blocked", "content"),
    (550, "5.7.1", "from [192.0.2.1]: sender x@example.net is blocked here", "permanent"),
    (550, "", "The IP address was not found in our records", "permanent"),
    (250, "2.0.0", "your IP is listed, but never mind", "temporary"),
]

SAMPLES: dict[str, list[Sample]] = {
    "google": GOOGLE,
    "microsoft": MICROSOFT,
    "yahoo": YAHOO,
    "apple": APPLE,
    "proton": PROTON,
    "fastmail": FASTMAIL,
    "": ANYBODY,
}
EACH = [(provider, *sample) for provider, samples in SAMPLES.items() for sample in samples]


def relay(provider: str) -> str:
    return f"{HOSTS[provider]}[192.0.2.9]:25"


def written(ruling: Ruling) -> str:
    """Write a ruling as MEANINGS does."""
    words = [ruling.scope.value, ruling.fate.value, f"{ruling.pause:.0f}-{ruling.longest:.0f}"]
    wishes = [name for name in ("alert", "split", "secure", "elsewhere") if getattr(ruling, name)]
    return f"{ruling.name}: {', '.join(words + wishes)}"


def as_providers_vary_it(text: str) -> Iterator[str]:
    """Give the same words in other letters, on other lines, with an id behind them."""
    yield text
    yield text.upper()
    yield text.lower()
    yield text.replace(" ", "\n")
    yield text.replace(" ", "  \n ")
    yield text.replace("e-mail", "email")
    yield text.replace("email", "e-mail")
    yield f"{text}\nFor more information, go to\nhttps://support.google.com/a?p=x 98e67ed59e1d1-2d3e-4f5si1 - gsmtp"


def test_every_published_error_of_google_means_what_it_says() -> None:
    published = google_errors()
    assert len(published) == len(GOOGLE_PUBLISHED)
    for (code, enhanced, text), (known, its_enhanced, words, meaning) in zip(published, GOOGLE_PUBLISHED, strict=True):
        assert (int(code), enhanced) == (known, its_enhanced)
        assert words in text
        assert written(classify(Reply(known, enhanced, text), relay("google"))) == MEANINGS[meaning], text


def test_every_published_error_of_google_is_known_in_other_letters_and_lines() -> None:
    for (code, enhanced, text), row in zip(google_errors(), GOOGLE_PUBLISHED, strict=True):
        for varied in as_providers_vary_it(text):
            ruling = classify(Reply(int(code), enhanced, varied), relay("google"))
            assert written(ruling) == MEANINGS[row[3]], varied


@pytest.mark.parametrize(("provider", "code", "enhanced", "text", "meaning"), EACH)
def test_replies_mean_what_they_say(provider: str, code: int, enhanced: str, text: str, meaning: str) -> None:
    for varied in as_providers_vary_it(text):
        assert written(classify(Reply(code, enhanced, varied), relay(provider))) == MEANINGS[meaning], varied


@pytest.mark.parametrize("provider", [name for name in SAMPLES if name])
def test_there_are_samples_of_each_provider(provider: str) -> None:
    assert len(SAMPLES[provider]) >= 8


@pytest.mark.parametrize("index", range(len(ROWS)), ids=lambda index: f"{index}: {ROWS[index].ruling.name}")
def test_without_any_row_a_sample_is_misread(index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rest = ROWS[:index] + ROWS[index + 1 :]
    monkeypatch.setattr(module, "_TABLE", module._ready(rest))
    for provider, code, enhanced, text, meaning in EACH:
        if written(classify(Reply(code, enhanced, text), relay(provider))) != MEANINGS[meaning]:
            return
    pytest.fail("no sample needs this row")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.provider or 'any'}: {row.ruling.name}")
def test_rows_make_sense(row: Row) -> None:
    ruling = row.ruling
    assert row.provider in HOSTS
    assert row.text or row.enhanced  # no code alone decides
    assert ruling.text
    assert ruling not in (TEMPORARY, PERMANENT)
    assert 0 <= ruling.pause <= ruling.longest
    assert (ruling.pause == 0) == (ruling.longest == 0)
    assert not any(module._ready((row,))[0].code.fullmatch(str(code)) for code in range(200, 400))


def test_every_meaning_has_a_sample() -> None:
    assert {meaning for *_, meaning in EACH} == set(MEANINGS)
