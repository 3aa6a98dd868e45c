//! The border between C and Rust: borrowed text in, owned text out, and no panic gets through.

use std::any::Any;
use std::ffi::{c_char, CString};
use std::panic::{catch_unwind, AssertUnwindSafe};

/// `enum native_status` of the header, value for value.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok = 0,
    Undefined = 1,
    Invalid = 2,
    NotFound = 3,
    Timeout = 4,
    Internal = 5,
}

/// `struct native_text`: borrowed for the call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Text {
    data: *const u8,
    bytes: usize,
}

pub struct Failure {
    pub status: Status,
    pub message: String,
}

pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

impl Text {
    /// # Safety
    /// As for `as_str`.
    pub unsafe fn as_bytes<'a>(self) -> &'a [u8] {
        if self.bytes == 0 {
            return &[];
        }
        std::slice::from_raw_parts(self.data, self.bytes)
    }

    /// # Safety
    /// `data` points to `bytes` readable bytes that do not change while the result lives.
    pub unsafe fn as_str<'a>(self, what: &str) -> Outcome<&'a str> {
        std::str::from_utf8(self.as_bytes())
            .map_err(|error| Failure::new(Status::Invalid, format!("{what} is not UTF-8: {error}")))
    }
}

/// Hands a string over to C, which gives it back through `native_string_free`.
pub fn give_string(text: String) -> *mut c_char {
    let mut bytes = text.into_bytes();
    bytes.retain(|&byte| byte != 0);        // our texts hold none; a foreign message might
    CString::new(bytes).map_or(std::ptr::null_mut(), CString::into_raw)
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_string())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_string());
    format!("internal error in the native library: {text}")
}

/// Runs `body`; its error or panic becomes a status and, when `error` is not NULL, a message.
///
/// # Safety
/// `error` is NULL or a place for one pointer.
pub unsafe fn guard(error: *mut *mut c_char, body: impl FnOnce() -> Outcome<Status>) -> Status {
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(status)) => return status,
        Ok(Err(failure)) => failure,
        Err(payload) => Failure::new(Status::Internal, panic_text(payload.as_ref())),
    };
    if !error.is_null() {
        *error = give_string(failure.message);
    }
    failure.status
}

/// # Safety
/// `text` is NULL or came from a function of this library and was not freed before.
#[no_mangle]
pub unsafe extern "C" fn native_string_free(text: *mut c_char) {
    if !text.is_null() {
        drop(CString::from_raw(text));
    }
}
