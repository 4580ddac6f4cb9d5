"""Railway in miniature: its GraphQL API, Next.js processes as deployments, the edge that relays to the live one."""
