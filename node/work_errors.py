"""Failures of work items."""

from __future__ import annotations

from node.errors import NodeError


class WorkitemUnknownError(NodeError):
    code = "WORKITEM_UNKNOWN"
    sentence = "there is no such work item"
    advice = "Search the worklist: GET /dicom-web/workitems."


class WorkitemExistsError(NodeError):
    code = "WORKITEM_EXISTS"
    sentence = "a work item of this UID exists"
    advice = "Create it under another UID, or leave the UID to the node."


class WorkitemConflictError(NodeError):
    code = "WORKITEM_CONFLICT"
    sentence = "the work item does not allow it (status {status}): {reason}"
    advice = "Ask for its state: GET /dicom-web/workitems/UID; docs/worklist.md has the table."


class WorkitemRefusedError(WorkitemConflictError):
    code = "WORKITEM_REFUSED"
    sentence = "the request does not fit the work item (status {status}): {reason}"
    advice = "Show the Transaction UID that it was claimed with; one that has ended stays as it is."


class WorkitemInvalidError(NodeError):
    code = "WORKITEM_INVALID"
    sentence = "the work item or the request cannot be used: {reason}"
    advice = "Send application/dicom+json as PS3.18 11 says (docs/worklist.md)."
