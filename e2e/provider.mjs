// An OpenID Provider for the tests: panva's oidc-provider. The only argument is JSON with the relying party:
//
//   {"clientID", "clientSecret", "callback", "home", "backchannel", "accessTokenLife"}
//
// It listens on a free port of 127.0.0.1 and writes one JSON object per line to stdout: {"event": "ready", "issuer"} first,
// then what happens. It ends when its stdin does.
import crypto from 'node:crypto';
import http from 'node:http';
import { Provider } from 'oidc-provider';

const relyingParty = JSON.parse(process.argv[2]);
const say = (event, more) => console.log(JSON.stringify({ event, ...more }));

const { privateKey } = crypto.generateKeyPairSync('rsa', { modulusLength: 2048 });
const server = http.createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{
      client_id: relyingParty.clientID,
      client_secret: relyingParty.clientSecret,
      grant_types: ['authorization_code', 'refresh_token'],
      redirect_uris: [relyingParty.callback],
      post_logout_redirect_uris: [relyingParty.home],
      backchannel_logout_uri: relyingParty.backchannel,
      backchannel_logout_session_required: true, // and with it sid in ID tokens
    }],
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256', kid: 'e2e' }] },
    cookies: { keys: [crypto.randomBytes(16).toString('hex')] },
    pkce: { required: () => true },
    claims: { openid: ['sub', 'groups'], email: ['email', 'email_verified'], profile: ['name', 'preferred_username'] },
    conformIdTokenClaims: false, // claims of scopes come in the ID token too
    findAccount: (ctx, id) => ({
      accountId: id,
      claims: () => ({
        sub: id, name: `${id} of the tests`, preferred_username: id, email: `${id}@example.com`, email_verified: true, groups: ['staff', 'testers'],
      }),
    }),
    // Without these two a refresh token comes only with prompt=consent, and dies with the browser's session here.
    issueRefreshToken: (ctx, client, code) => code.scopes.has('openid'),
    expiresWithSession: () => false,
    rotateRefreshToken: true,
    ttl: { AccessToken: relyingParty.accessTokenLife, IdToken: 300, RefreshToken: 3600, Session: 3600, Grant: 3600, Interaction: 600 },
    features: {
      backchannelLogout: { enabled: true },
      devInteractions: { enabled: true },
      rpInitiatedLogout: { enabled: true },
      revocation: { enabled: true },
      dPoP: { enabled: false },
      pushedAuthorizationRequests: { enabled: false },
    },
    // Its own dispatcher refuses to call loopback addresses, where the relying party is.
    fetch: (url, { dispatcher, ...options }) => fetch(url, options),
  });
  provider.on('grant.success', (ctx) => say('grant', { type: ctx.oidc.params.grant_type, refreshToken: Boolean(ctx.body?.refresh_token) }));
  provider.on('grant.error', (ctx, error) => say('grant refused', { error: error.message, detail: error.error_detail }));
  provider.on('authorization.error', (ctx, error) => say('authorization refused', { error: error.message }));
  provider.on('grant.revoked', () => say('revoked'));
  provider.on('backchannel.success', () => say('back-channel logout'));
  provider.on('backchannel.error', (ctx, error) => say('back-channel logout failed', { error: error.message }));
  provider.on('server_error', (ctx, error) => say('error', { error: String(error.stack) }));
  server.on('request', provider.callback());
  say('ready', { issuer });
});

process.stdin.resume().on('end', () => process.exit(0));
process.on('SIGINT', () => process.exit(0));
