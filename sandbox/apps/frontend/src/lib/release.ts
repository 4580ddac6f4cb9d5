/** Id of the release this server runs, as Railway names it at run time; `development` elsewhere. */
export const release = () => (process.env.RAILWAY_GIT_COMMIT_SHA ?? 'development').slice(0, 12);
