//! What routes must hold beside each other, whoever wrote them: a configuration or a program.

use super::{Route, Settings};
use crate::net::route::Pattern;

/// Why routes do not hold.
#[derive(Debug)]
pub(super) struct Problem {
    /// The key that is to blame.
    pub(super) key: &'static str,
    pub(super) message: String,
    pub(super) help: &'static str,
}

impl Problem {
    fn of_path(message: String, help: &'static str) -> Self {
        Self { key: "routes.path", message, help }
    }
}

impl Settings {
    /// Checks that the routes hold beside each other, for settings that were not
    /// [resolved](super::resolve) but made or changed by a program.
    ///
    /// # Errors
    /// The first route that does not, and why.
    pub fn check_routes(&self) -> Result<(), String> {
        for (index, route) in self.routes.iter().enumerate() {
            if let Some(Problem { message, help, .. }) =
                problems(route, &self.routes[..index]).first()
            {
                let message = format!("route {index}, {:?}: {message}", route.path);
                return Err(if help.is_empty() { message } else { format!("{message}; {help}") });
            }
        }
        Ok(())
    }
}

/// What is wrong with a route behind those before it.
pub(super) fn problems(route: &Route, earlier: &[Route]) -> Vec<Problem> {
    let pattern = match Pattern::parse(&route.path) {
        Ok(pattern) => pattern,
        Err(message) => return vec![Problem::of_path(message, "")],
    };
    let mut problems = Vec::new();
    if route.app == "rooms" && !pattern.params().any(|name| name == "name") {
        let message = "the app \"rooms\" takes a room's name from the path".to_owned();
        let help = "put {name} into it: \"/rooms/{name}\"";
        problems.push(Problem::of_path(message, help));
    }
    for (index, other) in earlier.iter().enumerate() {
        let Ok(other_pattern) = Pattern::parse(&other.path) else { continue };
        if pattern.matches_as(&other_pattern) {
            let message = format!("matches the same paths as route {index}, {:?}", other.path);
            problems.push(Problem::of_path(message, ""));
        } else if route.space() == other.space()
            && let Some((what, help)) = disagreement((route, &pattern), (other, &other_pattern))
        {
            let space = route.space();
            let message = format!(
                "shares the room space {space:?} with route {index}, {:?}, but not its {what}",
                other.path
            );
            problems.push(Problem { key: "routes.room_space", message, help });
        }
    }
    problems
}

/// On what two routes of one room space do not agree. A room's message is encoded once, under the
/// limits and with the compression of any of its members, for all of them; and a name means the same
/// room at all of its routes.
fn disagreement(
    (ours, our_pattern): (&Route, &Pattern),
    (theirs, their_pattern): (&Route, &Pattern),
) -> Option<(&'static str, &'static str)> {
    let params = |pattern: &Pattern| {
        let mut names: Vec<String> = pattern.params().map(str::to_owned).collect();
        names.sort_unstable();
        names
    };
    if ours.limits != theirs.limits {
        return Some(("limits", "give both the same [routes.limits]"));
    }
    if ours.deflate != theirs.deflate {
        return Some(("compression", "give both the same [routes.deflate]"));
    }
    let both_rooms = ours.app == "rooms" && theirs.app == "rooms";
    if both_rooms && params(our_pattern) != params(their_pattern) {
        let help = "the app \"rooms\" names a room by all parameters: give both paths the same";
        return Some(("parameters", help));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::Context;
    use super::*;

    fn check(change: impl FnOnce(&mut [Route])) -> Result<(), String> {
        let mut context = Context::new(1);
        let route = |path: &str| (path.to_owned(), "rooms".to_owned());
        context.routes_default =
            vec![route("/a/{name}"), route("/b/{name}"), route("/c/{name}/{x}")];
        let mut settings = Settings::defaults(&context);
        change(&mut settings.routes);
        settings.check_routes()
    }

    fn share(routes: &mut [Route], which: &[usize]) {
        which.iter().for_each(|&index| routes[index].room_space = Some("hall".to_owned()));
    }

    #[test]
    fn routes_that_share_a_room_space_agree() {
        assert_eq!(check(|routes| routes[1].limits.rooms_max = 1), Ok(()), "nothing is shared");
        assert_eq!(check(|routes| share(routes, &[0, 1])), Ok(()));
        let error = check(|routes| {
            share(routes, &[0, 1]);
            routes[1].limits.queue_bytes_max = 1;
        });
        assert_eq!(
            error.unwrap_err(),
            "route 1, \"/b/{name}\": shares the room space \"hall\" with route 0, \"/a/{name}\", but \
             not its limits; give both the same [routes.limits]"
        );
        let error = check(|routes| {
            share(routes, &[0, 1]);
            routes[0].deflate.enabled = false;
        });
        assert!(error.unwrap_err().contains("not its compression"));
        // By the pattern of another route, too.
        let error = check(|routes| routes[2].room_space = Some("/a/{name}".to_owned()));
        assert!(error.unwrap_err().contains("not its parameters"));
        let other_app = check(|routes| {
            share(routes, &[0, 2]);
            routes[2].app = "echo".to_owned();
        });
        assert_eq!(other_app, Ok(()), "it names its rooms as it likes");
    }

    #[test]
    fn routes_that_a_program_made_are_checked() {
        for (path, problem) in [
            ("/b/*", "would be a literal"),
            ("/b", "takes a room's name from the path"),
            ("/a/{room}/", "empty segment"),
        ] {
            let error = check(|routes| routes[1].path = path.to_owned()).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
        let error = check(|routes| {
            routes[1].path = "/a/{name_too}".to_owned();
            routes[1].app = "echo".to_owned();
        });
        assert!(error.unwrap_err().contains("matches the same paths as route 0"));
    }
}
