"""Failures at the doors: what cannot be stored or pulled, and who may not come in by HTTP."""

from __future__ import annotations

from node.errors import ConfigError, NodeError


class StowTypeError(NodeError):
    code = "STOW_TYPE"
    sentence = "the body is not multipart/related of DICOM files or metadata, with a boundary"
    advice = "Send DICOM files, each a part of its own, as PS3.18 10.5 says (docs/dicomweb.md)."


class StowInvalidError(NodeError):
    code = "STOW_INVALID"
    sentence = "the request cannot be read: {reason}"
    advice = "Send it again; what was stored of it is known and stays as it is."


class StowTooLargeError(NodeError):
    code = "STOW_TOO_LARGE"
    sentence = "the request has more than {limit_bytes} bytes"
    advice = "Send the study in several requests, or raise [stow] max_request_bytes."


class StowBusyError(NodeError):
    code = "STOW_BUSY"
    sentence = "{limit} requests are stored at this moment, more may not"
    advice = "Try again soon (see Retry-After), or raise [stow] max_requests."


class ListenersBusyError(NodeError):
    code = "LISTENERS_BUSY"
    sentence = "{limit} pages and programs listen for changes at this moment, more may not"
    advice = "Ask again from time to time instead, as the pages do by themselves."


class AssociationRateError(NodeError):
    code = "ASSOCIATION_RATE"
    sentence = "the address asks for more than {limit} associations a minute"
    advice = "Have the sender use one association for many images, or raise the limit of [receive]."


class AssociationLimitError(NodeError):
    code = "ASSOCIATION_LIMIT"
    sentence = "the address has {limit} associations already"
    advice = "Wait for one to end, or raise [receive] max_associations_per_address."


class RequestRateError(NodeError):
    code = "REQUEST_RATE"
    sentence = "more than {limit} requests came within a minute"
    advice = "Ask less often (see Retry-After), or raise [web] requests_per_minute."


class HttpUnprotectedError(ConfigError):
    code = "HTTP_UNPROTECTED"
    sentence = "[web] host is {address}, and everybody there would be let in"
    advice = "Give out tokens ([web] tokens_file), ask for certificates, or bind to 127.0.0.1."


class TlsUnusableError(NodeError):
    code = "TLS_UNUSABLE"
    sentence = "the certificate, its key or the file of authorities cannot be used ({reason})"
    advice = "Check that the files are PEM, can be read, and that the key is the certificate's."


class SecretAbsentError(NodeError):
    code = "SECRET_ABSENT"
    sentence = "the file with the password or token for {destination} cannot be read or is empty"
    advice = "Check password_file or bearer_token_file, and that the node's user may read it."


class NotLoggedInError(NodeError):
    code = "NOT_LOGGED_IN"
    sentence = "the request does not say who sends it, or nobody whom the node knows"
    advice = "Log in, or send `Authorization: Bearer` with a token of the node."


class NotAllowedError(NodeError):
    code = "NOT_ALLOWED"
    sentence = "the role {role} may not do this"
    advice = "Ask for a token of another role; docs/security.md says what each may do."


class OrderKeyReusedError(NodeError):
    code = "ORDER_KEY_REUSED"
    sentence = "another order came with the same Idempotency-Key"
    advice = "Give each order a key of its own; only its repeats have the same."


class RouteSenderError(ConfigError):
    code = "ROUTE_SENDER_UNKNOWN"
    sentence = "route {rule!r} sends back to the sender, who is no dimse destination: {among}"
    advice = "Name the senders in its calling_ae_titles, and a destination with each AE title."


class RouteLeftOutError(NodeError):
    code = "ROUTE_OTHER_MODEL"
    sentence = "route {rule!r} has other models work on the study"
    advice = "Nothing has to be done; name the model in the route where it should work on it, too."


class RouteReferenceError(ConfigError):
    code = "ROUTE_REFERENCE"
    sentence = "route {rule!r} wants the result on a series that is none of {among}"
    advice = "Name an input of the model as its reference, or leave it out."


class PullSourceError(ConfigError):
    code = "PULL_SOURCE"
    sentence = "there is no archive of that name that studies can be pulled from"
    advice = "Set [source] transport to qido or cfind, or name a destination that has a network."


class PullStudyError(NodeError):
    code = "PULL_STUDY_UNKNOWN"
    sentence = "{destination} has no MR series of the study"
    advice = "Check the Study Instance UID, and whether the node's user there may see the study."


class PullIncompleteError(NodeError):
    code = "PULL_INCOMPLETE"
    sentence = "{count} of {total} instances could not be stored, the first because of {first}"
    advice = "Look that code up; pull again once it is mended, what is stored is not fetched again."


class PullBusyError(NodeError):
    code = "PULL_BUSY"
    sentence = "the study is being pulled at this moment"
    advice = "Wait for it, or ask how far it is: GET /api/v1/studies/UID/process."


class PullStoppedError(NodeError):
    code = "PULL_STOPPED"
    sentence = "the pull was stopped before its end"
    advice = "Pull again: what is stored is not fetched again."


class PullUnknownError(NodeError):
    code = "PULL_UNKNOWN"
    sentence = "nobody has asked for this study to be pulled"
    advice = "Ask for it: POST /api/v1/studies/UID/process."
