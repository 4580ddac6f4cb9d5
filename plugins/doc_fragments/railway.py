# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations


class ModuleDocFragment:
    """The options by which modules find a service at Railway."""

    DOCUMENTATION = r"""
options:
  api_url:
    description: Railway's GraphQL endpoint.
    type: str
    default: https://backboard.railway.com/graphql/v2
  token_file:
    description: File (mode 0600, owned by the user of the task) that holds the token.
    type: path
    required: true
  token_type:
    description:
      - What the token is. V(account) covers account and workspace tokens.
      - A V(project) token belongs to one environment of one project and brings both along.
    type: str
    choices: [account, project]
    required: true
  project:
    description: Name or id of the project. Required with an account token; with a project token it is checked.
    type: str
  environment:
    description: Name or id of the environment. Required with an account token; with a project token it is checked.
    type: str
  service:
    description: Name or id of the service.
    type: str
    required: true
"""
