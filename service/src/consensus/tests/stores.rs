//! The log and the state machine under openraft's own suite.
