//! JSON Schema of `deploy.yml`.
