//! Rego policies: a set of modules compiled once, evaluated by any thread.

use std::ffi::c_char;
use std::num::NonZeroU32;
use std::time::Duration;

use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, LimitError, Value};
use serde_json::json;

use crate::border::{give_string, guard, Failure, Outcome, Status, Text};
use crate::rego_explain::{deciding_rules, input_paths, undefined_call, Comparison, Operand};
use crate::rego_syntax::{error_text, normalise};

/// The interpreter looks at the clock once per this many steps (a step costs well under a microsecond).
const STEPS_PER_CLOCK_READ: u32 = 64;

#[repr(C)]
pub struct ModuleText {
    name: Text,
    text: Text,
}

/// Immutable after creation: every evaluation works on its own clone, which shares all compiled state.
pub struct Rego {
    engine: Engine,
}

fn invalid(error: &anyhow::Error) -> Failure {
    Failure::new(Status::Invalid, error_text(error))
}

fn evaluation_failure(error: &anyhow::Error) -> Failure {
    let is_timeout = error
        .chain()
        .any(|cause| matches!(cause.downcast_ref(), Some(LimitError::TimeLimitExceeded { .. })));
    let text = error_text(error);
    let status = if is_timeout || text.contains("execution exceeded time limit") {
        Status::Timeout
    } else if text.contains("not a valid rule path") {
        Status::NotFound
    } else {
        Status::Invalid
    };
    Failure::new(status, text)
}

impl Rego {
    pub fn new(modules: &[(&str, &str)], data_json: &str) -> Outcome<Self> {
        let mut engine = Engine::new();
        engine.set_gather_prints(true);
        engine.set_strict_builtin_errors(false);        // as OPA: a builtin's error makes the expression undefined
        for (name, text) in modules {
            let module = normalise(name, text)?;
            engine.set_rego_v0(module.is_v0);
            engine.add_policy(module.name, module.text).map_err(|error| invalid(&error))?;
        }
        engine.set_rego_v0(false);
        if !data_json.is_empty() {
            engine.add_data_json(data_json).map_err(|error| invalid(&error))?;
        }
        // Any query makes it analyse all modules, so what is wrong with them is said now and clones share the result.
        engine.eval_query("true".to_string(), false).map_err(|error| invalid(&error))?;
        if let Some(message) = undefined_call(engine.get_modules()) {
            return Err(Failure::new(Status::Invalid, message));
        }
        Ok(Self { engine })
    }

    fn engine_for(&self, input_json: &str, limit_ns: u64) -> Outcome<Engine> {
        let mut engine = self.engine.clone();
        if limit_ns > 0 {
            engine.set_execution_timer_config(ExecutionTimerConfig {
                limit: Duration::from_nanos(limit_ns),
                check_interval: NonZeroU32::new(STEPS_PER_CLOCK_READ).unwrap_or(NonZeroU32::MIN),
            });
        }
        let input = Value::from_json_str(input_json)
            .map_err(|error| Failure::new(Status::Invalid, format!("input is not JSON: {error}")))?;
        engine.set_input(input);
        Ok(engine)
    }

    pub fn eval(&self, rule: &str, input_json: &str, limit_ns: u64) -> Outcome<Option<String>> {
        let mut engine = self.engine_for(input_json, limit_ns)?;
        match engine.eval_rule(rule.to_string()).map_err(|error| evaluation_failure(&error))? {
            Value::Undefined => Ok(None),
            value => serde_json::to_string(&value)
                .map(Some)
                .map_err(|error| Failure::new(Status::Internal, error.to_string())),
        }
    }

    pub fn explain(&self, rule: &str, input_json: &str, limit_ns: u64) -> Outcome<String> {
        let engine = self.engine_for(input_json, limit_ns)?;
        let rules = deciding_rules(&engine, rule).map_err(|error| evaluation_failure(&error))?;
        let rules: Vec<_> = rules
            .iter()
            .map(|found| json!({"module": found.module, "line": found.line, "is_default": found.is_default}))
            .collect();
        Ok(json!(rules).to_string())
    }
}

fn comparison_json(comparison: &Comparison) -> serde_json::Value {
    let mut object = json!({"path": comparison.path, "operator": comparison.operator});
    let (name, value) = match &comparison.with {
        Operand::Number(number) => ("number", json!(number)),
        Operand::Text(text) => ("text", json!(text)),
        Operand::Path(path) => ("other", json!(path)),
    };
    object[name] = value;
    object
}

unsafe fn modules_of<'a>(modules: *const ModuleText, count: usize) -> Outcome<Vec<(&'a str, &'a str)>> {
    let modules = if count == 0 { &[] } else { std::slice::from_raw_parts(modules, count) };
    modules
        .iter()
        .map(|module| Ok((module.name.as_str("a module's name")?, module.text.as_str("a module")?)))
        .collect()
}

/// # Safety
/// As the header says: pointers are valid for the call, `out` and `error` are places for one pointer.
#[no_mangle]
pub unsafe extern "C" fn native_rego_create(
    modules: *const ModuleText,
    module_count: usize,
    data_json: Text,
    out: *mut *mut Rego,
    error: *mut *mut c_char,
) -> Status {
    guard(error, || {
        let modules = modules_of(modules, module_count)?;
        let rego = Rego::new(&modules, data_json.as_str("the data document")?)?;
        *out = Box::into_raw(Box::new(rego));
        Ok(Status::Ok)
    })
}

/// # Safety
/// `rego` is NULL or came from `native_rego_create`, and no other thread uses it any more.
#[no_mangle]
pub unsafe extern "C" fn native_rego_destroy(rego: *mut Rego) {
    if !rego.is_null() {
        guard(std::ptr::null_mut(), || {
            drop(Box::from_raw(rego));
            Ok(Status::Ok)
        });
    }
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn native_rego_eval(
    rego: *const Rego,
    rule: Text,
    input_json: Text,
    limit_ns: u64,
    out_json: *mut *mut c_char,
    error: *mut *mut c_char,
) -> Status {
    guard(error, || {
        let value = (*rego).eval(rule.as_str("the rule")?, input_json.as_str("the input")?, limit_ns)?;
        let Some(value) = value else { return Ok(Status::Undefined) };
        *out_json = give_string(value);
        Ok(Status::Ok)
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn native_rego_explain(
    rego: *const Rego,
    rule: Text,
    input_json: Text,
    limit_ns: u64,
    out_json: *mut *mut c_char,
    error: *mut *mut c_char,
) -> Status {
    guard(error, || {
        let rules = (*rego).explain(rule.as_str("the rule")?, input_json.as_str("the input")?, limit_ns)?;
        *out_json = give_string(rules);
        Ok(Status::Ok)
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn native_rego_inputs(
    rego: *const Rego,
    out_json: *mut *mut c_char,
    error: *mut *mut c_char,
) -> Status {
    guard(error, || {
        let mut engine = (*rego).engine.clone();
        let inputs = input_paths(engine.get_modules());
        let comparisons: Vec<_> = inputs.comparisons.iter().map(comparison_json).collect();
        let answer = json!({
            "paths": inputs.paths,
            "values": inputs.values,
            "comparisons": comparisons,
            "has_with": inputs.has_with,
            "is_volatile": inputs.is_volatile,
        });
        *out_json = give_string(answer.to_string());
        Ok(Status::Ok)
    })
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn native_rego_normalise(
    name: Text,
    text: Text,
    out_text: *mut *mut c_char,
    out_is_v0: *mut bool,
    error: *mut *mut c_char,
) -> Status {
    guard(error, || {
        let module = normalise(name.as_str("the module's name")?, text.as_str("the module")?)?;
        *out_is_v0 = module.is_v0;
        *out_text = give_string(module.text);
        Ok(Status::Ok)
    })
}
