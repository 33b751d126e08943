"""Failures at the HTTP doors: what cannot be stored by STOW-RS, and who may not come in."""

from __future__ import annotations

from node.errors import NodeError


class StowTypeError(NodeError):
    code = "STOW_TYPE"
    sentence = "the body is not multipart/related of application/dicom with a boundary"
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
