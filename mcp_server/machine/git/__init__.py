"""All git: the user's repository, agents' workspaces, trial checkouts, and the inputs that git does not track."""

from mcp_server.machine.git.bundle import Depot, has_commit, open_copy, take_bundle
from mcp_server.machine.git.candidate import Edit, apply_edits, tree_with_files
from mcp_server.machine.git.checkout import check_out, restore
from mcp_server.machine.git.combine import Combined, Conflict, combine
from mcp_server.machine.git.command import GitFailed
from mcp_server.machine.git.elsewhere import pointers, submodules
from mcp_server.machine.git.excluding import exclude
from mcp_server.machine.git.inputs import Input, expand_inputs, find_inputs, is_data_file, missing_hint, state_of
from mcp_server.machine.git.locks import Hold, locked
from mcp_server.machine.git.private import Snapshots, link_environment, paths_of
from mcp_server.machine.git.repository import Repository
from mcp_server.machine.git.workspace import Workspace, ensure_state_folder, hold_workspace
from mcp_server.research.guard import Change, check_changes, check_path

__all__ = [
    "Change",
    "Combined",
    "Conflict",
    "Depot",
    "Edit",
    "GitFailed",
    "Hold",
    "Input",
    "Repository",
    "Snapshots",
    "Workspace",
    "apply_edits",
    "check_changes",
    "check_out",
    "check_path",
    "combine",
    "ensure_state_folder",
    "exclude",
    "expand_inputs",
    "find_inputs",
    "has_commit",
    "hold_workspace",
    "is_data_file",
    "link_environment",
    "locked",
    "missing_hint",
    "open_copy",
    "paths_of",
    "pointers",
    "restore",
    "state_of",
    "submodules",
    "take_bundle",
    "tree_with_files",
]
