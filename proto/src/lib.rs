//! The wire protocol of dhow and the validated model that all programs share.
