//! JSON Schema: compiled once, validates by any thread.  Complete in itself: nothing is fetched or read.

use std::ffi::c_char;

use jsonschema::{PatternOptions, Validator};
use serde_json::{json, Value};

use crate::border::{give_string, guard, Failure, Outcome, Status, Text};

/// A pattern may step back this often before it counts as failed (schemas come from outside).
const PATTERN_BACKTRACK_MAX: usize = 100_000;
const PATTERN_BYTES_MAX: usize = 1 << 20;

pub struct Schema {
    validator: Validator,
}

fn parse(text: &str, what: &str) -> Outcome<Value> {
    serde_json::from_str(text).map_err(|error| Failure::new(Status::Invalid, format!("{what} is not JSON: {error}")))
}

impl Schema {
    pub fn new(text: &str) -> Outcome<Self> {
        let schema = parse(text, "the schema")?;
        let patterns = PatternOptions::fancy_regex()
            .backtrack_limit(PATTERN_BACKTRACK_MAX)
            .size_limit(PATTERN_BYTES_MAX);
        jsonschema::options()       // 2020-12, unless `$schema` names an older draft
            .offline()
            .with_pattern_options(patterns)
            .build(&schema)
            .map(|validator| Self { validator })
            .map_err(|error| {
                Failure::new(Status::Invalid, format!("schema at '{}': {error}", error.instance_path().as_str()))
            })
    }

    /// NULL when valid; else at most `error_max` errors.  The messages never quote the instance: it may hold secrets.
    pub fn validate(&self, instance: &str, error_max: usize) -> Outcome<Option<String>> {
        let instance = parse(instance, "the value")?;
        if self.validator.is_valid(&instance) {
            return Ok(None);
        }
        let errors: Vec<Value> = self
            .validator
            .iter_errors(&instance)
            .take(error_max)
            .map(|error| {
                json!({
                    "instance_path": error.instance_path().as_str(),
                    "keyword": error.kind().keyword(),
                    "message": error.masked().to_string(),
                })
            })
            .collect();
        Ok(Some(Value::from(errors).to_string()))
    }
}

/// # Safety
/// As the header says: pointers are valid for the call, `out` and `error` are places for one pointer.
#[no_mangle]
pub unsafe extern "C" fn native_schema_create(text: Text, out: *mut *mut Schema, error: *mut *mut c_char) -> Status {
    guard(error, || {
        *out = Box::into_raw(Box::new(Schema::new(text.as_str("the schema")?)?));
        Ok(Status::Ok)
    })
}

/// # Safety
/// `schema` is NULL or came from `native_schema_create`, and no other thread uses it any more.
#[no_mangle]
pub unsafe extern "C" fn native_schema_destroy(schema: *mut Schema) {
    if !schema.is_null() {
        guard(std::ptr::null_mut(), || {
            drop(Box::from_raw(schema));
            Ok(Status::Ok)
        });
    }
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn native_schema_validate(
    schema: *const Schema,
    instance: Text,
    error_max: usize,
    out_errors_json: *mut *mut c_char,
    error: *mut *mut c_char,
) -> Status {
    guard(error, || {
        match (*schema).validate(instance.as_str("the value")?, error_max)? {
            None => Ok(Status::Ok),
            Some(errors) => {
                *out_errors_json = give_string(errors);
                Ok(Status::Invalid)
            }
        }
    })
}
