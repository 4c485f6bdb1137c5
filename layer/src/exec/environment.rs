//! What a program's environment must hold so that the layer is in it as well, even if whoever
//! starts it made the environment anew: ld.so(8).

use core::ffi::{CStr, c_char};

use mirrord_protocol::layer::{LAYER_FILE, LAYER_VARIABLE};

/// The loader's variable.
pub const PRELOAD_VARIABLE: &str = "LD_PRELOAD";
/// The most variables of an environment that is looked at.
const MAX_VARIABLES: usize = 1 << 17;

/// Variables as execve(2) takes them: an array that ends with null.
#[derive(Clone, Copy)]
pub struct Environment(*const *const c_char);

impl Environment {
    /// # Safety
    /// Null, or an array of strings that ends with null; both outlive the value.
    pub unsafe fn new(array: *const *const c_char) -> Self {
        Self(array)
    }

    /// As it was given.
    pub fn as_ptr(self) -> *const *const c_char {
        self.0
    }

    /// The value of the first variable of this name.
    pub fn get<'a>(self, name: &str) -> Option<&'a [u8]> {
        self.variables().find_map(|variable| value(variable, name))
    }

    fn variables(self) -> impl Iterator<Item = *const c_char> {
        let array = self.0;
        (0..MAX_VARIABLES).map_while(move |number| {
            if array.is_null() {
                return None;
            }
            // SAFETY: `new` was promised an array up to null, and the end is not passed.
            let variable = unsafe { *array.add(number) };
            (!variable.is_null()).then_some(variable)
        })
    }
}

/// The value of a variable of this name.
fn value<'a>(variable: *const c_char, name: &str) -> Option<&'a [u8]> {
    // SAFETY: the variables of an `Environment` are strings that outlive it.
    let variable = unsafe { CStr::from_ptr(variable) };
    variable.to_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// Whether the layer is one of the libraries that a value of LD_PRELOAD names.
fn names_layer(libraries: &[u8]) -> bool {
    libraries
        .split(|byte| matches!(byte, b':' | b' '))
        .filter_map(|path| path.rsplit(|byte| *byte == b'/').next())
        .any(|file| file == LAYER_FILE.as_bytes())
}

/// What is missing in an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    variables: usize,
    preload: bool,
    /// Bytes of the libraries that the program wants to be loaded by itself.
    libraries: usize,
    layer: bool,
}

impl Missing {
    /// `None` if nothing is.
    pub fn of(environment: Environment) -> Option<Self> {
        let (mut preload, mut layer) = (true, true);
        let (mut variables, mut libraries) = (0, 0);
        for variable in environment.variables() {
            variables += 1;
            if let Some(value) = value(variable, PRELOAD_VARIABLE) {
                preload = !names_layer(value);
                libraries = value.len();
            } else if value(variable, LAYER_VARIABLE).is_some() {
                layer = false;
            }
        }
        (preload || layer).then_some(Self { variables, preload, libraries, layer })
    }

    /// Bytes that [`Self::fill`] needs: the array, and the variables that are new.
    pub fn room(&self, own: &Own<'_>) -> usize {
        let text = PRELOAD_VARIABLE.len() + LAYER_VARIABLE.len() + 5;
        self.array() + text + own.library.len() + self.libraries + own.variable.len()
    }

    /// Bytes of the array: two variables may be new, and null is the last.
    fn array(&self) -> usize {
        (self.variables + 3) * size_of::<*const c_char>()
    }

    /// The environment with what was missing, in `room`, which outlives it.
    ///
    /// # Safety
    /// `room` is aligned for pointers, and as long as [`Self::room`] said.
    pub unsafe fn fill(&self, from: Environment, own: &Own<'_>, room: *mut u8) -> Environment {
        let array = room.cast::<*const c_char>();
        let mut len = 0;
        let mut push = |variable: *const c_char| {
            // SAFETY: `room` counted each of them, two new ones, and the end.
            unsafe { array.add(len).write(variable) };
            len += 1;
        };
        let mut libraries: &[u8] = &[];
        for variable in from.variables().take(self.variables) {
            match value(variable, PRELOAD_VARIABLE) {
                Some(value) if self.preload => libraries = value,
                _ => push(variable),
            }
        }
        let libraries = libraries.get(..self.libraries).unwrap_or(libraries);
        // SAFETY: behind the array `room` left space for both variables.
        let mut text = unsafe { room.add(self.array()) };
        if self.layer {
            push(text.cast());
            // SAFETY: as above.
            text = unsafe { write(text, &[LAYER_VARIABLE.as_bytes(), b"=", own.variable]) };
        }
        if self.preload {
            push(text.cast());
            let colon: &[u8] = if libraries.is_empty() { b"" } else { b":" };
            // Ours stands behind what the program wants: some libraries insist on being the first.
            let parts = [PRELOAD_VARIABLE.as_bytes(), b"=", libraries, colon, own.library];
            // SAFETY: as above.
            unsafe { write(text, &parts) };
        }
        push(core::ptr::null());
        Environment(array)
    }
}

/// Writes a string, and says where the next may begin.
///
/// # Safety
/// There is room for it and its NUL.
unsafe fn write(to: *mut u8, parts: &[&[u8]]) -> *mut u8 {
    let mut at = to;
    for byte in parts.iter().copied().flatten().chain(&[0]) {
        // SAFETY: the caller's.
        unsafe {
            at.write(*byte);
            at = at.add(1);
        }
    }
    at
}

/// What brought the layer into this process.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    /// The layer's path.
    pub library: &'a [u8],
    /// The value of MIRRORD_LAYER.
    pub variable: &'a [u8],
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use super::*;

    struct Array {
        _strings: Vec<CString>,
        pointers: Vec<*const c_char>,
    }

    impl Array {
        fn new(variables: &[&str]) -> Self {
            let new = |text: &&str| CString::new(*text).expect("no NUL");
            let strings: Vec<_> = variables.iter().map(new).collect();
            let ends = std::iter::once(core::ptr::null());
            let pointers = strings.iter().map(|text| text.as_ptr()).chain(ends).collect();
            Self { _strings: strings, pointers }
        }

        fn environment(&self) -> Environment {
            Environment(self.pointers.as_ptr())
        }
    }

    const PATH: &str = "/tmp/x/libmirrord_layer.so";
    const OWN: Own<'_> = Own { library: PATH.as_bytes(), variable: b"mirrord-1:00ff" };

    /// `None` if the environment needs nothing.
    fn merged(variables: &[&str]) -> Option<Vec<String>> {
        let array = Array::new(variables);
        let missing = Missing::of(array.environment())?;
        let len = missing.room(&OWN);
        let mut room = vec![usize::MAX; len.div_ceil(size_of::<usize>()) + 1];
        // SAFETY: it is aligned, and as long as asked for.
        let environment =
            unsafe { missing.fill(array.environment(), &OWN, room.as_mut_ptr().cast()) };
        assert_eq!(room.last(), Some(&usize::MAX), "written behind the end");
        let text = |variable| {
            // SAFETY: `fill` made it.
            let variable = unsafe { CStr::from_ptr(variable) };
            variable.to_str().expect("text").to_owned()
        };
        Some(environment.variables().map(text).collect())
    }

    #[test]
    fn a_whole_environment_is_left_alone() {
        let preload = format!("LD_PRELOAD=libfoo.so {PATH}");
        assert_eq!(merged(&["A=1", &preload, "MIRRORD_LAYER=other"]), None);
    }

    #[test]
    fn an_empty_environment_gets_both() {
        let both = ["MIRRORD_LAYER=mirrord-1:00ff", "LD_PRELOAD=/tmp/x/libmirrord_layer.so"];
        assert_eq!(merged(&[]).expect("both"), both);
        // SAFETY: null is an empty environment.
        assert!(Missing::of(unsafe { Environment::new(core::ptr::null()) }).is_some());
    }

    #[test]
    fn libraries_of_the_program_stay_and_come_first() {
        let got = merged(&["LD_PRELOAD=libasan.so.8", "A=1", "MIRRORD_LAYER=x"]).expect("merged");
        assert_eq!(got, ["A=1", "MIRRORD_LAYER=x", &format!("LD_PRELOAD=libasan.so.8:{PATH}")]);
        let got = merged(&["LD_PRELOAD=", "MIRRORD_LAYER=x"]).expect("merged");
        assert_eq!(got, ["MIRRORD_LAYER=x", &format!("LD_PRELOAD={PATH}")]);
        let got = merged(&["LD_PRELOAD=/other", "LD_PRELOAD=/later"]).expect("merged");
        assert_eq!(got[1], format!("LD_PRELOAD=/later:{PATH}"), "the loader takes the last");
    }

    fn variable() -> impl proptest::strategy::Strategy<Value = String> {
        use proptest::prelude::*;
        let library = prop_oneof![Just(PATH.to_owned()), "[a-z/. :]{0,12}"];
        prop_oneof![
            "[A-Z_]{0,8}=?[ -~]{0,12}",
            library.prop_map(|value| format!("LD_PRELOAD={value}")),
            "[a-z:]{0,8}".prop_map(|value| format!("MIRRORD_LAYER={value}")),
        ]
    }

    proptest::proptest! {
        #[test]
        fn any_environment_has_both_and_keeps_what_it_had(
            variables in proptest::collection::vec(variable(), 0..12)
        ) {
            let before: Vec<&str> = variables.iter().map(String::as_str).collect();
            let got = merged(&before);
            let after: Vec<&str> = match &got {
                Some(got) => got.iter().map(String::as_str).collect(),
                None => before.clone(),
            };
            proptest::prop_assert!(merged(&after).is_none(), "nothing is missing any longer");
            let others = |list: &[&str]| -> Vec<String> {
                let own = |text: &&&str| !text.starts_with("LD_PRELOAD=");
                let kept = list.iter().filter(own).map(|text| (*text).to_owned());
                kept.take(list.len()).collect()
            };
            let (had, has) = (others(&before), others(&after));
            proptest::prop_assert_eq!(&has[..had.len()], &had[..]);
            let libraries = before.iter().rev().find_map(|text| text.strip_prefix("LD_PRELOAD="));
            let now = after.iter().rev().find_map(|text| text.strip_prefix("LD_PRELOAD="));
            proptest::prop_assert!(now.expect("it is there").starts_with(libraries.unwrap_or("")));
        }
    }

    #[test]
    fn variables_that_begin_alike_are_others() {
        let got = merged(&["LD_PRELOADED=1", "MIRRORD_LAYERS=2"]).expect("merged");
        assert_eq!(got.len(), 4);
    }
}
