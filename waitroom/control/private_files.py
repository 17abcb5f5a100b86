"""The files of ``data_dir`` that only the gateway's user may read."""

from __future__ import annotations

from waitroom.control.audit.account_changes import RECORDED_FILE
from waitroom.control.audit.anchors import ANCHORS_FILE
from waitroom.control.auth.accounts import ACCOUNTS_FILE, LOCAL_TOKEN_FILE
from waitroom.process.data_dir import AUDIT_KEY_FILE, SECRET_FILE

# They grant access. A copy, such as a restored backup, may have other modes than the original.
PRIVATE_FILES = (SECRET_FILE, AUDIT_KEY_FILE, ANCHORS_FILE, ACCOUNTS_FILE, RECORDED_FILE, LOCAL_TOKEN_FILE)
