BEGIN TRANSACTION;
CREATE TABLE attempt (
	attempt_id INTEGER NOT NULL, 
	case_id VARCHAR(32) NOT NULL, 
	stage VARCHAR(16) NOT NULL, 
	destination VARCHAR(32), 
	started_at FLOAT NOT NULL, 
	ended_at FLOAT, 
	outcome VARCHAR(16), 
	code VARCHAR(64), 
	sentence TEXT, 
	next_at FLOAT, 
	PRIMARY KEY (attempt_id)
);
CREATE TABLE case_choice (
	case_id VARCHAR(32) NOT NULL, 
	role VARCHAR(16) NOT NULL, 
	series_instance_uid VARCHAR(64) NOT NULL, 
	part VARCHAR(64) NOT NULL, 
	PRIMARY KEY (case_id, role)
);
CREATE TABLE case_instance (
	case_id VARCHAR(32) NOT NULL, 
	sop_instance_uid VARCHAR(64) NOT NULL, 
	role VARCHAR(16) NOT NULL, 
	PRIMARY KEY (case_id, sop_instance_uid)
);
CREATE TABLE case_series (
	case_id VARCHAR(32) NOT NULL, 
	series_instance_uid VARCHAR(64) NOT NULL, 
	part VARCHAR(64) NOT NULL, 
	description VARCHAR(64) NOT NULL, 
	sequence VARCHAR(32) NOT NULL, 
	role VARCHAR(16), 
	score FLOAT NOT NULL, 
	runner_up VARCHAR(64) NOT NULL, 
	reason TEXT NOT NULL, 
	geometry VARCHAR(128) NOT NULL, 
	instance_count INTEGER NOT NULL, 
	is_whole BOOLEAN NOT NULL, 
	code VARCHAR(64), 
	PRIMARY KEY (case_id, series_instance_uid, part)
);
CREATE TABLE commitment (
	transaction_uid VARCHAR(64) NOT NULL, 
	case_id VARCHAR(32) NOT NULL, 
	destination VARCHAR(32) NOT NULL, 
	number INTEGER NOT NULL, 
	ae_title VARCHAR(16) NOT NULL, 
	sop_instance_uids JSON NOT NULL, 
	begun_at FLOAT NOT NULL, 
	asked_at FLOAT, 
	reported_at FLOAT, 
	failures JSON, 
	concluded_at FLOAT, 
	PRIMARY KEY (transaction_uid), 
	UNIQUE (case_id, destination, number)
);
CREATE TABLE doomed_file (
	path VARCHAR(200) NOT NULL, 
	PRIMARY KEY (path)
);
CREATE TABLE haste (
	case_id VARCHAR(32) NOT NULL, 
	PRIMARY KEY (case_id)
);
CREATE TABLE imaging_case (
	case_id VARCHAR(32) NOT NULL, 
	study_instance_uid VARCHAR(64) NOT NULL, 
	model_id VARCHAR(100) NOT NULL, 
	revision INTEGER NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	opened_at FLOAT NOT NULL, 
	last_received_at FLOAT NOT NULL, 
	released_at FLOAT, 
	completion_requested_at FLOAT, 
	updated_at FLOAT NOT NULL, 
	closed_at FLOAT, 
	closed_by VARCHAR(16), 
	reason TEXT NOT NULL, 
	reference_role VARCHAR(16), 
	code VARCHAR(64), 
	sentence TEXT, 
	advice TEXT, 
	resume_state VARCHAR(16), 
	run INTEGER NOT NULL, 
	summary JSON, 
	folder_bytes BIGINT NOT NULL, 
	volumes_purged_at FLOAT, 
	purged_at FLOAT, 
	PRIMARY KEY (case_id), 
	UNIQUE (study_instance_uid, model_id, revision)
);
INSERT INTO "imaging_case" VALUES('8589e5f3baf951338077c063444a8978','1','demo@1',1,'receiving',1736935200.0,1736935200.0,NULL,NULL,1736935200.0,NULL,NULL,'',NULL,NULL,NULL,NULL,NULL,1,NULL,0,NULL,NULL);
CREATE TABLE instance (
	sop_instance_uid VARCHAR(64) NOT NULL, 
	study_instance_uid VARCHAR(64) NOT NULL, 
	series_instance_uid VARCHAR(64) NOT NULL, 
	sop_class_uid VARCHAR(64) NOT NULL, 
	transfer_syntax_uid VARCHAR(64) NOT NULL, 
	calling_ae_title VARCHAR(16) NOT NULL, 
	path VARCHAR(200) NOT NULL, 
	byte_count BIGINT NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	received_at FLOAT NOT NULL, 
	PRIMARY KEY (sop_instance_uid)
);
INSERT INTO "instance" VALUES('1.2.0','1','1.1','1.2.840.10008.5.1.4.1.1.4','1.2.840.10008.1.2.1','SCANNER','instances/1.2.0.dcm',10,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',1736935200.0);
INSERT INTO "instance" VALUES('1.2.1','1','1.1','1.2.840.10008.5.1.4.1.1.4','1.2.840.10008.1.2.1','SCANNER','instances/1.2.1.dcm',10,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',1736935200.0);
INSERT INTO "instance" VALUES('1.2.2','1','1.1','1.2.840.10008.5.1.4.1.1.4','1.2.840.10008.1.2.1','SCANNER','instances/1.2.2.dcm',10,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',1736935200.0);
CREATE TABLE ledger_meta (
	schema_version INTEGER NOT NULL
);
INSERT INTO "ledger_meta" VALUES(4);
CREATE TABLE notification (
	notification_id VARCHAR(32) NOT NULL, 
	event VARCHAR(32) NOT NULL, 
	case_id VARCHAR(32) NOT NULL, 
	run INTEGER NOT NULL, 
	destination VARCHAR(32), 
	code VARCHAR(64) NOT NULL, 
	happened_at FLOAT NOT NULL, 
	routed_at FLOAT, 
	PRIMARY KEY (notification_id)
);
CREATE TABLE notification_send (
	notification_id VARCHAR(32) NOT NULL, 
	channel VARCHAR(16) NOT NULL, 
	attempt_count INTEGER NOT NULL, 
	waited_s FLOAT NOT NULL, 
	next_at FLOAT NOT NULL, 
	sent_at FLOAT, 
	given_up_at FLOAT, 
	sentence TEXT, 
	PRIMARY KEY (notification_id, channel)
);
CREATE TABLE operator_order (
	order_key VARCHAR(96) NOT NULL, 
	content TEXT NOT NULL, 
	ordered_at FLOAT NOT NULL, 
	PRIMARY KEY (order_key)
);
CREATE TABLE prediction (
	prediction_id VARCHAR(32) NOT NULL, 
	number BIGINT, 
	state VARCHAR(16) NOT NULL, 
	is_awaited BOOLEAN NOT NULL, 
	owner VARCHAR(100) NOT NULL, 
	submitted_at FLOAT NOT NULL, 
	started_at FLOAT, 
	ended_at FLOAT, 
	executor_id VARCHAR(100), 
	tries INTEGER NOT NULL, 
	windows_done INTEGER NOT NULL, 
	window_count INTEGER NOT NULL, 
	byte_count BIGINT NOT NULL, 
	model_id VARCHAR(100), 
	notes JSON, 
	code VARCHAR(64), 
	sentence TEXT, 
	advice TEXT, 
	disposition VARCHAR(16), 
	PRIMARY KEY (prediction_id), 
	UNIQUE (number)
);
CREATE TABLE pull (
	study_instance_uid VARCHAR(64) NOT NULL, 
	source VARCHAR(32) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	asked_at FLOAT NOT NULL, 
	seen_at FLOAT, 
	ended_at FLOAT, 
	next_at FLOAT, 
	executor_id VARCHAR(100), 
	tries INTEGER NOT NULL, 
	"plan" JSON, 
	tally JSON, 
	code VARCHAR(64), 
	sentence TEXT, 
	advice TEXT, 
	PRIMARY KEY (study_instance_uid)
);
CREATE TABLE receipt (
	case_id VARCHAR(32) NOT NULL, 
	destination VARCHAR(32) NOT NULL, 
	sop_instance_uid VARCHAR(64) NOT NULL, 
	transport VARCHAR(8) NOT NULL, 
	status_code VARCHAR(16) NOT NULL, 
	attempt INTEGER NOT NULL, 
	delivered_at FLOAT NOT NULL, 
	committed_at FLOAT, 
	PRIMARY KEY (case_id, destination, sop_instance_uid)
);
CREATE TABLE result (
	case_id VARCHAR(32) NOT NULL, 
	sop_instance_uid VARCHAR(64) NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	sop_class_uid VARCHAR(64) NOT NULL, 
	series_instance_uid VARCHAR(64) NOT NULL, 
	study_instance_uid VARCHAR(64) NOT NULL, 
	transfer_syntax_uid VARCHAR(64) NOT NULL, 
	path VARCHAR(200) NOT NULL, 
	byte_count BIGINT NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	PRIMARY KEY (case_id, sop_instance_uid)
);
CREATE TABLE worker (
	executor_id VARCHAR(100) NOT NULL, 
	role VARCHAR(16) NOT NULL, 
	host VARCHAR(100) NOT NULL, 
	pid INTEGER NOT NULL, 
	seen_at FLOAT NOT NULL, 
	detail JSON, 
	PRIMARY KEY (executor_id)
);
INSERT INTO "worker" VALUES('node-1/work','work','h',1,1.79606859936501240737e+09,'{}');
CREATE INDEX ix_instance_study_instance_uid ON instance (study_instance_uid);
CREATE INDEX ix_imaging_case_state ON imaging_case (state);
CREATE INDEX ix_attempt_case_id ON attempt (case_id);
CREATE INDEX ix_commitment_case_id ON commitment (case_id);
CREATE INDEX ix_notification_case_id ON notification (case_id);
CREATE INDEX ix_notification_routed_at ON notification (routed_at);
CREATE INDEX ix_notification_send_next_at ON notification_send (next_at);
CREATE INDEX ix_prediction_state ON prediction (state);
CREATE INDEX ix_operator_order_ordered_at ON operator_order (ordered_at);
CREATE INDEX ix_pull_state ON pull (state);
COMMIT;
