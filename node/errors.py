"""Failures of the node's own input and output."""

from __future__ import annotations

from converters.errors import CodedError


class NodeError(CodedError):
    """Root of this package's errors."""


class ConfigError(NodeError):
    code = "CONFIG_INVALID"
    sentence = "the configuration cannot be used: {reason}"
    advice = "Correct config/node.toml or the NEUROSEG_ variables; `neuroseg doctor` says more."


class AddressUnavailableError(NodeError):
    code = "ADDRESS_UNAVAILABLE"
    sentence = "cannot listen on {address}:{port} ({reason})"
    advice = "Another program, perhaps another node, has the port; end it or change the port."


class SpoolFullError(NodeError):
    code = "SPOOL_FULL"
    sentence = "{free_bytes} bytes are free, the floor is {floor_bytes}"
    advice = "Free space on the spool's disk; receiving starts again by itself."


class SpoolQuotaError(SpoolFullError):
    code = "SPOOL_QUOTA"
    sentence = "the spool holds {used_bytes} bytes, the quota is {quota_bytes}"
    advice = "Raise [spool] quota_bytes or shorten [retention]; receiving starts again by itself."


class SpoolAbsentError(NodeError):
    code = "SPOOL_ABSENT"
    sentence = "the ledger knows {count} instances and none of their files is in the spool"
    advice = "Mount the spool's disk; if it is lost, run `neuroseg spool check --repair`."


class BackupTargetError(NodeError):
    code = "BACKUP_TARGET"
    sentence = "no backup can be made: {reason}"
    advice = "Name a new or empty folder; a ledger in PostgreSQL is copied by pg_dump."


class LedgerBusyError(NodeError):
    code = "LEDGER_BUSY"
    sentence = "processes of a node work with the ledger: {roles}"
    advice = "Stop the node, wait for [jobs] heartbeat_timeout_s, then copy the ledger."


class LedgerOccupiedError(NodeError):
    code = "LEDGER_OCCUPIED"
    sentence = "the new ledger is not empty: its table {table} has rows"
    advice = "Name an empty database; nothing was written to this one."


class InstanceLostError(NodeError):
    code = "SPOOL_INSTANCE_LOST"
    sentence = "files of the study are missing or damaged in the spool: {count}"
    advice = "Send the study again, and check the spool's disk."


class ResultLostError(NodeError):
    code = "SPOOL_RESULT_LOST"
    sentence = "files of the result are missing or damaged in the spool: {count}"
    advice = "Retry the case, which makes them anew, and check the spool's disk."


class CasePurgedError(NodeError):
    code = "CASE_PURGED"
    sentence = "the files of the case were deleted"
    advice = "Send the study again; [retention] says how long files are kept."


class InstanceUnreadableError(NodeError):
    code = "INSTANCE_UNREADABLE"
    sentence = "the instance cannot be accepted: {reason}"
    advice = "The sender's object is damaged or lacks its identifiers; send the original."


class InstanceConflictError(NodeError):
    code = "INSTANCE_CONFLICT"
    sentence = "an instance with this SOP Instance UID but other content is already stored"
    advice = "A changed object needs a new SOP Instance UID."


class InstanceMismatchError(NodeError):
    code = "INSTANCE_MISMATCH"
    sentence = "{keyword} of the data set is not the one that the request names"
    advice = "Correct the sender; the object contradicts its own request."


class InstanceTooLargeError(NodeError):
    code = "INSTANCE_TOO_LARGE"
    sentence = "the instance has more than {limit_bytes} bytes"
    advice = "Raise [receive] max_instance_bytes if such objects are wanted."


class SpoolUnwritableError(NodeError):
    code = "SPOOL_UNWRITABLE"
    sentence = "the file cannot be written ({reason})"
    advice = "Check the spool's disk and the rights on its folder; the sender may try again."


class LedgerUnavailableError(NodeError):
    code = "LEDGER_UNAVAILABLE"
    sentence = "the ledger cannot be used ({kind})"
    advice = "Check the ledger's database and its disk; the sender may try again."


class LedgerSchemaError(NodeError):
    code = "LEDGER_SCHEMA"
    sentence = "the ledger has schema version {found}, this program needs version {expected}"
    advice = "Start the program that made it, or give this one a new ledger ([ledger] url)."


class SopClassUnsupportedError(NodeError):
    code = "SOP_CLASS_UNSUPPORTED"
    sentence = "the SOP class of the instance is none that was negotiated or can be stored"
    advice = "Correct the sender: its object is of no storage class or contradicts its association."


class TransferSyntaxUnsupportedError(NodeError):
    code = "TRANSFER_SYNTAX_UNSUPPORTED"
    sentence = "the transfer syntax of the instance is none that the node takes"
    advice = "Send the instance in one of the transfer syntaxes of docs/dicomweb.md."


class PeerUnavailableError(NodeError):
    code = "PEER_UNAVAILABLE"
    sentence = "{destination} does not answer ({reason})"
    advice = "Check that the destination runs and can be reached; delivery is tried again."


class PeerRefusedError(NodeError):
    """A final no; lack of resources (A7xx, HTTP 429 and 5xx) is `PeerUnavailableError` instead."""

    code = "PEER_REFUSED"
    sentence = "{destination} refused with status {status}"
    advice = "Check the destination's log and its rules for this node's AE title."


class FolderUnavailableError(NodeError):
    code = "FOLDER_UNAVAILABLE"
    sentence = "the folder of {destination} cannot be used ({reason})"
    advice = (
        "Mount the share, free space on it, or give the node's user the right to write there; "
        "delivery is tried again."
    )


class CommitmentMissingError(NodeError):
    code = "COMMITMENT_MISSING"
    sentence = "{destination} did not say within {timeout_s:.0f} s whether it keeps the objects"
    advice = "See that it knows this node's AE title, address and port; it is asked again."


class CommitmentFailedError(NodeError):
    code = "COMMITMENT_FAILED"
    sentence = "{destination} does not keep {count} of the objects yet, reason {status}"
    advice = "Nothing at first: what it lacks is stored again. If it stays so, check its log."


class CommitmentRefusedError(NodeError):
    code = "COMMITMENT_REFUSED"
    sentence = "{destination} does not commit itself to keep {count} objects, status {status}"
    advice = "Check its log and whether it offers storage commitment, or set commitment = false."


class ReportInvalidError(NodeError):
    code = "REPORT_INVALID"
    sentence = "a report of storage commitment cannot be used: {reason}"
    advice = "Check which peer sends it; nothing was changed by it."


class ReporterUnknownError(NodeError):
    code = "REPORTER_UNKNOWN"
    sentence = "a report of storage commitment came from another AE title than was asked"
    advice = "Set the destination's ae_title to the one that it reports under."


class NotificationFailedError(NodeError):
    code = "NOTIFY_FAILED"
    sentence = "{channel} did not take the notification ({reason})"
    advice = "Check [notify] and the receiver; `neuroseg notify test` tries it, it is told again."


class IllegalTransitionError(NodeError):
    code = "CASE_ILLEGAL_MOVE"
    sentence = "a case cannot go from {current} to {wanted}"
    advice = "Report this as a defect with the case's log."


class CaseUnknownError(NodeError):
    code = "CASE_UNKNOWN"
    sentence = "there is no such case"
    advice = "List the cases with `neuroseg cases`."


class CaseNotOpenError(NodeError):
    code = "CASE_NOT_OPEN"
    sentence = "the case is {state}, expected {expected}"
    advice = "Act on the newest revision of the study; cancel a case that works before changing it."


class SeriesUnknownError(NodeError):
    code = "SERIES_UNKNOWN"
    sentence = "the study has no such series or part to serve as {role}"
    advice = "Choose one of the series and parts that the case lists."


class SeriesTakenError(NodeError):
    code = "SERIES_CHOSEN_TWICE"
    sentence = "one series was chosen for {first} and for {second}"
    advice = "Choose another series for one of the two."


class RoleUnknownError(NodeError):
    code = "ROLE_UNKNOWN"
    sentence = "the model has no such input, expected one of {roles}"
    advice = "Choose series for the inputs of the model only."


class CaseDeadlineError(NodeError):
    code = "CASE_DEADLINE"
    sentence = "the study was not complete at its deadline: {missing}"
    advice = "Send what is missing, complete the case by hand, or set deadline_action to process."


class StudyCountError(NodeError):
    code = "STUDY_COUNT"
    sentence = "the folder holds {count} studies, expected one"
    advice = "Give a folder with the DICOM files of one study."


class NothingNewError(NodeError):
    code = "CASE_NOTHING_NEW"
    sentence = "the late instances change none of the model's inputs; the earlier result stands"
    advice = "Nothing to do. Retry the case to have it computed again."


class CancelledByOperatorError(NodeError):
    code = "CASE_CANCELLED"
    sentence = "an operator cancelled the case"
    advice = "Retry the case to have it computed after all."


class MemoryShortError(NodeError):
    code = "MEMORY_SHORT"
    sentence = "there was too little memory in {place}"
    advice = "Give the node more memory or fewer [jobs] workers, then retry the case."


class CaseOvertakenError(NodeError):
    code = "CASE_OVERTAKEN"
    sentence = "the case was {state} by the time the stage came to its end"
    advice = "Nothing to do: what the stage made counts for nothing."


class ActionUnavailableError(NodeError):
    code = "CASE_ACTION_UNAVAILABLE"
    sentence = "a case that is {state} cannot be told to {action}; what it can be told: {can}"
    advice = "Look at the case again, it may have moved on; then act on what it is now."


class CaseNotHeldError(NodeError):
    code = "CASE_NOT_HELD"
    sentence = "the case is {state}, expected held"
    advice = "Only a result that waits for a person can be released; see `neuroseg cases`."


class ResultHeldError(NodeError):
    code = "RESULT_HELD"
    sentence = "the result is held back because of {codes}"
    advice = "Look at it, then release it (`neuroseg cases release`) or cancel the case."


class JobCrashedError(NodeError):
    code = "JOB_CRASHED"
    sentence = "the process died again and again while the case was {stage}"
    advice = "Look for the cause in the log (memory, disk), then retry the case."


class UnforeseenError(NodeError):
    code = "UNFORESEEN"
    sentence = "an unforeseen {kind} in {place}"
    advice = "Report this as a defect with the case's log, then retry the case."


class RequestInvalidError(NodeError):
    code = "REQUEST_INVALID"
    sentence = "{parameter} of the request is not {expected}"
    advice = "Correct the request; /docs describes what each one takes."


class RequestRefusedError(NodeError):
    code = "REQUEST_REFUSED"
    sentence = "the request cannot be answered (HTTP {status})"
    advice = "/docs describes which requests each address takes."


class HostRefusedError(NodeError):
    code = "HOST_REFUSED"
    sentence = "the Host header names a host that this node does not answer for"
    advice = "Use the address of [web] in config/node.toml, or localhost."


class CrossSiteError(NodeError):
    code = "CROSS_SITE_REFUSED"
    sentence = "the request comes from a page of another site"
    advice = "Only pages of this node and programs may send files or delete anything."


class UploadTypeError(NodeError):
    code = "UPLOAD_TYPE"
    sentence = "the body is not multipart/form-data with a boundary"
    advice = "Send the file as a form does: curl -F file=@channels.nii.gz."


class UploadInvalidError(NodeError):
    code = "UPLOAD_INVALID"
    sentence = "the upload cannot be read: {reason}, expected one part named file with content"
    advice = "Send the file as a form does: curl -F file=@channels.nii.gz."


class UploadTooLargeError(NodeError):
    code = "UPLOAD_TOO_LARGE"
    sentence = "the file has more than {limit_bytes} bytes"
    advice = "Compress or crop the file, or raise [predict] max_upload_bytes."


class UploadSlowError(NodeError):
    code = "UPLOAD_SLOW"
    sentence = "the upload was {state} {seconds:.0f} s"
    advice = "Send the file over a better connection, or raise its silence_s, patience_s."


class RequestSlowError(NodeError):
    code = "REQUEST_SLOW"
    sentence = "the head of the request was not whole after {seconds:.0f} s"
    advice = "Send the request again over a better connection."


class PredictionQueueFullError(NodeError):
    code = "PREDICTION_QUEUE_FULL"
    sentence = "{waiting} predictions wait already, at most {limit} may"
    advice = "Try again later (see Retry-After), or raise [predict] max_waiting."


class PredictionUnknownError(NodeError):
    code = "PREDICTION_UNKNOWN"
    sentence = "there is no such prediction, or it is no longer kept"
    advice = "Send the file again; [predict] keep_s says how long results are kept."


class PredictionNotDoneError(NodeError):
    code = "PREDICTION_NOT_DONE"
    sentence = "the prediction is {state}, expected done"
    advice = "Ask for its state until it is done."


class PredictionLateError(NodeError):
    code = "PREDICTION_LATE"
    sentence = "the prediction was not done after {patience_s:.0f} s"
    advice = "Send the file with `Prefer: respond-async` and ask for the result later."


class ResourceUnknownError(NodeError):
    code = "RESOURCE_UNKNOWN"
    sentence = "there is nothing at this address"
    advice = "Begin at the status page."


class CaseFileAbsentError(NodeError):
    code = "CASE_FILE_ABSENT"
    sentence = "the case has no {name}"
    advice = "Files appear as the case goes on; see which ones it names."


class NotReadyError(NodeError):
    code = "NODE_NOT_READY"
    sentence = "not ready: {missing} missing"
    advice = "Start the roles that are missing; `neuroseg doctor` says more."


class LedgerUnreadableError(NodeError):
    code = "LEDGER_UNREADABLE"
    sentence = "the ledger cannot be read"
    advice = "Check the database and the disk that it lies on; nothing is lost."
