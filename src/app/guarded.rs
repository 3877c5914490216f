//! Values of users' types, behind a wall: whatever of their code runs, a panic stops here.
//!
//! A worker holds users' values in these types alone. They give out nothing by value, so that a
//! drop that is not guarded cannot be written down.
//!
//! A second panic while the first one unwinds, such as two elements of a `Vec` that both panic when
//! they are dropped, aborts the process: that is the language's rule, and nothing can guard it.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A user's code has panicked. The panic hook has reported it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panicked;

/// Runs a user's code. Unwind safety: a panic may leave the user's own data half changed, which is
/// the user's affair; the server's is changed by whole operations only, none of which panics.
fn guard<T>(code: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| {
        // What was panicked with is a user's value, too.
        if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            mem::forget(another);
        }
        Panicked
    })
}

/// A user's value.
#[derive(Debug)]
pub(super) struct Guarded<T>(Option<T>);

const HELD: &str = "a value is held until it is dropped";

impl<T> Guarded<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// Runs its code, which may change it.
    pub(super) fn run<R>(&mut self, code: impl FnOnce(&mut T) -> R) -> Result<R, Panicked> {
        let value = self.0.as_mut().expect(HELD);
        guard(|| code(value))
    }

    /// Runs its code.
    pub(super) fn look<R>(&self, code: impl FnOnce(&T) -> R) -> Result<R, Panicked> {
        let value = self.0.as_ref().expect(HELD);
        guard(|| code(value))
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        let value = self.0.take();
        let _ = guard(|| drop(value));
    }
}

/// An app's state for one connection, of a type that only the app knows. It is as large as a box:
/// there is one for each connection.
#[derive(Debug)]
pub struct AnyState(Box<dyn Any>);

impl AnyState {
    /// For the code of the app that makes the state: within the wall.
    pub(super) fn new<S: 'static>(state: S) -> Self {
        Self(Box::new(state))
    }

    /// What the app's code is handed, within the wall.
    pub(super) fn own<S: 'static>(&self) -> &S {
        self.0.downcast_ref().expect("made by the same app")
    }

    /// The same, to be changed.
    pub(super) fn own_mut<S: 'static>(&mut self) -> &mut S {
        self.0.downcast_mut().expect("made by the same app")
    }
}

impl Drop for AnyState {
    fn drop(&mut self) {
        // A box of nothing has no memory of its own.
        let state = mem::replace(&mut self.0, Box::new(()));
        let _ = guard(|| drop(state));
    }
}

/// A user's closure that makes something for each worker; cheap to clone.
pub struct Factory<T>(Arc<Guarded<Box<Make<T>>>>);

type Make<T> = dyn Fn() -> T + Send + Sync;

impl<T> Factory<T> {
    /// `T` is to be a type of this module's kind: what is made leaves the wall.
    pub(super) fn new(make: impl Fn() -> T + Send + Sync + 'static) -> Self {
        Self(Arc::new(Guarded::new(Box::new(make))))
    }

    /// Makes one.
    ///
    /// # Errors
    /// The closure panicked.
    pub fn make(&self) -> Result<T, Panicked> {
        self.0.look(|make| make())
    }
}

impl<T> Clone for Factory<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::panic::panic_any;
    use std::rc::Rc;

    /// Panics when it is dropped, and says that it was.
    struct Bomb(Rc<Cell<u32>>);

    impl Drop for Bomb {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
            panic!("as told");
        }
    }

    #[test]
    fn a_drop_that_panics_ends_at_the_wall() {
        let dropped = Rc::new(Cell::new(0));
        drop(Guarded::new(Bomb(dropped.clone())));
        drop(AnyState::new(Bomb(dropped.clone())));
        drop(AnyState::new((Bomb(dropped.clone()), "and more")));
        assert_eq!(dropped.get(), 3);
        assert_eq!(Rc::strong_count(&dropped), 1, "something is left");
    }

    #[test]
    fn a_closure_is_guarded_when_it_is_called_and_when_it_is_dropped() {
        /// Of a kind that a factory may own.
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("as told");
            }
        }
        let bomb = Bomb;
        let factory = Factory::new(move || {
            let _owned = &bomb;
            panic!("as told")
        });
        let made: Result<(), Panicked> = factory.clone().make();
        assert_eq!(made, Err(Panicked));
        drop(factory);
    }

    #[test]
    fn what_is_panicked_with_may_panic_too() {
        struct Payload(u32);
        impl Drop for Payload {
            fn drop(&mut self) {
                if self.0 > 0 {
                    panic_any(Payload(self.0 - 1));
                }
            }
        }
        assert_eq!(guard(|| panic_any(Payload(1))), Err::<(), _>(Panicked));
        assert_eq!(guard(|| panic_any(Payload(7))), Err::<(), _>(Panicked));
    }

    #[test]
    fn a_state_is_as_large_as_a_box() {
        assert_eq!(size_of::<Option<AnyState>>(), size_of::<Box<dyn Any>>());
    }
}
